"""How values and errors look in the trace of interpreter.py, as in shown.lua."""
import asyncio

from newer import QueueShutDown

DEEPEST = 4  # of the lists in lists that are shown


class UserError(Exception):
    pass


KINDS = {
    asyncio.CancelledError: "CancelledError",
    TimeoutError: "TimeoutError",
    asyncio.InvalidStateError: "InvalidStateError",
    asyncio.QueueEmpty: "QueueEmpty",
    asyncio.QueueFull: "QueueFull",
    asyncio.BrokenBarrierError: "BrokenBarrierError",
    QueueShutDown: "QueueShutDown",
}


def describe_error(error):
    if isinstance(error, UserError):
        return error.args[0]
    if isinstance(error, BaseExceptionGroup):
        return "ExceptionGroup[" + ", ".join(describe_error(inner) for inner in error.exceptions) + "]"
    if isinstance(error, asyncio.CancelledError) and error.args and error.args[0]:
        return f"CancelledError:{error.args[0]}"
    return KINDS.get(type(error), "error")


def describe(value, depth=0):
    if value is None:
        return "nil"
    if value is True or value is False:
        return lower(value)
    if isinstance(value, asyncio.CancelledError):
        return "CancelledError"
    if isinstance(value, BaseException):
        return describe_error(value)
    if isinstance(value, list):
        if depth == DEEPEST:
            return f"[{len(value)} items]"
        return "[" + ", ".join(describe(item, depth + 1) for item in value) + "]"
    return str(value)


def lower(truth):
    return "true" if truth else "false"
