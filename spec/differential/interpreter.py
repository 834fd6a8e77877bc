"""Runs programs of generator.lua with CPython's asyncio on a virtual clock: the other half of interpreter.lua.

Usage: python3 interpreter.py PROGRAMS.json
PROGRAMS.json holds a list of programs. Prints a JSON list of traces, each a list of lines.

Statement for statement the same as interpreter.lua: change both together. Python is 3.11 or newer; what agather takes
from newer ones (timeout, wait_for, TaskGroup, as_completed, uncancel, Condition.wait) is made here, so that all of them
give the same traces. Where agather departs on purpose (see SEMANTICS.md), this file follows agather:
- timers with equal deadlines are due in order of creation;
- all awaiters of a cancelled task get the same message, and a gather in a gather keeps its message;
- TaskGroup cancels its tasks in order of creation, as_completed and wait take theirs in the order of the list;
- a cancelled waiter of a condition hands on the notification that it got, and only then (3.13: always);
- the end of a lock's scope releases the lock only if the task still holds it.
"""
import asyncio
import contextvars
import heapq
import itertools
import json
import math
import os
import sys
import traceback
import warnings
from asyncio import tasks

MOST_COROS, MOST_STATEMENTS = 60, 3000
END_OF_TIME = 1000
DEEPEST = 4


# ---- the virtual clock ----


class Deadlock(Exception):
    pass


class VirtualSelector:
    """Never waits: moves the clock on instead."""

    def __init__(self):
        self.now = 0.0

    def select(self, timeout):
        if timeout is None:
            raise Deadlock
        self.now += timeout
        return ()


class OrderedTimer(asyncio.TimerHandle):
    """Ties in order of creation."""

    counter = itertools.count()

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.order = next(OrderedTimer.counter)

    def __lt__(self, other):
        return (self._when, self.order) < (other._when, other.order)


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = VirtualSelector()
        self._clock_resolution = 1e-9

    def time(self):
        return self._selector.now

    def call_at(self, when, callback, *arguments, context=None):
        timer = OrderedTimer(when, callback, arguments, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def _process_events(self, events):
        pass

    def _write_to_self(self):
        pass


# ---- what is newer than 3.11, or where agather departs ----


class Task(tasks._PyTask):
    """uncancel of 3.13; one error for all awaiters."""

    def uncancel(self):
        left = super().uncancel()
        if left == 0:
            self._must_cancel = False
        return left

    def _make_cancelled_error(self):
        return self._cancelled_exc or super()._make_cancelled_error()


class Gather(tasks._GatheringFuture):
    """Keeps the message, for a gather that it is in."""

    def cancel(self, msg=None):
        accepted = super().cancel(msg)
        if accepted:
            self._cancel_message = msg
        return accepted


tasks._GatheringFuture = Gather


class Timeout:
    """asyncio.timeout of 3.12."""

    def __init__(self, delay):
        self.loop = asyncio.get_running_loop()
        self.deadline = None if delay is None else self.loop.time() + delay
        self.timer = None
        self.state = "active"

    def expired(self):
        return self.state in ("expiring", "expired")

    def reschedule(self, deadline):
        if self.state != "active":
            raise RuntimeError("not active")
        self.deadline = deadline
        if self.timer is not None:
            self.timer.cancel()
        if deadline is None:
            self.timer = None
        elif deadline <= self.loop.time():
            self.timer = self.loop.call_soon(self.expire)
        else:
            self.timer = self.loop.call_at(deadline, self.expire)

    def expire(self):
        self.task.cancel()
        self.state = "expiring"
        self.timer = None

    async def __aenter__(self):
        self.task = asyncio.current_task()
        self.before = self.task.cancelling()
        self.reschedule(self.deadline)
        return self

    async def __aexit__(self, kind, error, traceback):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.state == "active":
            self.state = "finished"
        else:
            self.state = "expired"
            if self.task.uncancel() <= self.before and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error


async def wait_for(awaitable, timeout):
    """asyncio.wait_for of 3.12."""
    if timeout is not None and timeout <= 0:
        future = asyncio.ensure_future(awaitable)
        if future.done():
            return future.result()
        ended = asyncio.get_running_loop().create_future()

        def release(_):
            if not ended.done():
                ended.set_result(None)

        future.add_done_callback(release)
        try:
            future.cancel()
            await ended
        finally:
            future.remove_done_callback(release)
        try:
            return future.result()
        except asyncio.CancelledError as error:
            raise TimeoutError from error
    async with Timeout(timeout):
        return await awaitable


class TaskGroup:
    """asyncio.TaskGroup of 3.13."""

    def __init__(self):
        self.tasks = {}  # a set that keeps its order
        self.errors = []
        self.aborting = self.exiting = self.parent_cancelled = False
        self.completed = None

    async def __aenter__(self):
        self.loop = asyncio.get_running_loop()
        self.parent = asyncio.current_task()
        return self

    def create_task(self, coro):
        if self.exiting and not self.tasks or self.aborting:
            coro.close()
            raise RuntimeError("the group is finished or shutting down")
        task = self.loop.create_task(coro)
        self.tasks[task] = True
        task.add_done_callback(self.task_done)
        return task

    def abort(self):
        self.aborting = True
        for task in list(self.tasks):
            if not task.done():
                task.cancel()

    def task_done(self, task):
        del self.tasks[task]
        if self.completed is not None and not self.tasks and not self.completed.done():
            self.completed.set_result(True)
        if task.cancelled() or task.exception() is None:
            return
        self.errors.append(task.exception())
        if not self.parent.done() and not self.aborting and not self.parent_cancelled:
            self.abort()
            self.parent_cancelled = True
            self.parent.cancel()

    async def __aexit__(self, kind, error, traceback):
        self.exiting = True
        cancellation = error if isinstance(error, asyncio.CancelledError) else None
        if error is not None and not self.aborting:
            self.abort()
        while self.tasks:
            if self.completed is None:
                self.completed = self.loop.create_future()
            try:
                await self.completed
            except asyncio.CancelledError as cancelled:
                if not self.aborting:
                    cancellation = cancelled
                    self.abort()
            self.completed = None
        if self.parent_cancelled and self.parent.uncancel() == 0:
            cancellation = None
        if cancellation is not None and not self.errors:
            raise cancellation
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self.errors.append(error)
        if self.errors:
            if self.parent.cancelling():
                self.parent.uncancel()
                self.parent.cancel()
            raise BaseExceptionGroup("errors in a group", self.errors)
        return True


async def as_completed(awaitables, timeout):
    """The asynchronous iteration over asyncio.as_completed of 3.13."""
    futures = list(dict.fromkeys(asyncio.ensure_future(awaitable) for awaitable in dict.fromkeys(awaitables)))
    finished = asyncio.Queue()
    todo = dict.fromkeys(futures)
    timer = None

    def completed(future):
        if todo:
            del todo[future]
            finished.put_nowait(future)
            if not todo and timer is not None:
                timer.cancel()

    def late():
        for future in todo:
            future.remove_done_callback(completed)
            finished.put_nowait(None)
        todo.clear()

    for future in futures:
        future.add_done_callback(completed)
    if timeout is not None and futures:
        timer = asyncio.get_running_loop().call_later(timeout, late)
    for _ in futures:
        future = await finished.get()
        if future is None:
            raise TimeoutError
        yield future


class Lock(asyncio.Lock):
    """Knows which task holds it."""

    owner = None

    async def acquire(self):
        await super().acquire()
        self.owner = asyncio.current_task()
        return True

    async def __aexit__(self, *error):
        if self.locked() and self.owner is asyncio.current_task():
            self.release()


class Condition(asyncio.Condition):
    def __init__(self):
        super().__init__(Lock())

    async def __aexit__(self, *error):
        await self._lock.__aexit__(*error)

    async def wait(self):
        if not self.locked():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = asyncio.get_running_loop().create_future()
        error = None
        self.release()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError as cancelled:
            error = cancelled
        finally:
            self._waiters.remove(waiter)
        while True:
            try:
                await self.acquire()
                break
            except asyncio.CancelledError as cancelled:
                error = cancelled
        if error is None:
            return True
        if waiter.done() and not waiter.cancelled():
            self.notify(1)
        raise error


# ---- how values and errors look in the trace ----


class UserError(Exception):
    pass


KINDS = {
    asyncio.CancelledError: "CancelledError",
    TimeoutError: "TimeoutError",
    asyncio.InvalidStateError: "InvalidStateError",
    asyncio.QueueEmpty: "QueueEmpty",
    asyncio.QueueFull: "QueueFull",
    asyncio.BrokenBarrierError: "BrokenBarrierError",
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


# ---- the interpreter ----


class Frame:
    def __init__(self, name, level):
        self.name = name
        self.level = level
        self.result = None
        self.timeouts = []
        self.groups = []


class Entry:
    def __init__(self, value, level, name):
        self.value = value
        self.level = level
        self.name = name


variable = contextvars.ContextVar("variable", default="unset")


class Interpreter:
    def __init__(self, program):
        self.program = program
        self.tracing = True
        self.trace = []
        self.steps = 0
        self.coros = 0
        self.tasks = {}
        self.futures = {}
        self.groups = {}
        self.handles = {}
        self.callbacks = {}

    def log(self, frame, text):
        if self.tracing:
            self.trace.append(f"{self.loop.time():g} {frame.name} {text}")

    def counted(self):
        self.steps += 1
        return self.steps <= MOST_STATEMENTS

    async def statement(self, frame, statement):
        op = statement["op"]
        if op in now:
            self.statement_now(frame, statement)
            return False
        if not self.counted():
            return False
        if "guard" not in statement:
            return await waiting[op](self, frame, statement)
        try:
            return await waiting[op](self, frame, statement)
        except BaseException as error:
            self.log(frame, f"{op} raises {describe_error(error)}")

    def statement_now(self, frame, statement):
        if not self.counted():
            return
        op = statement["op"]
        if "guard" not in statement:
            now[op](self, frame, statement)
            return
        try:
            now[op](self, frame, statement)
        except BaseException as error:
            self.log(frame, f"{op} raises {describe_error(error)}")

    async def block(self, frame, statements):
        for statement in statements:
            if await self.statement(frame, statement):
                return True
        return False

    def coro(self, number):
        self.coros += 1
        statements = self.program["bodies"][number - 1] if self.coros <= MOST_COROS else []
        return self.body(Frame(f"b{number}.{self.coros}", number), statements)

    async def body(self, frame, statements):
        try:
            self.log(frame, "starts")
            await self.block(frame, statements)
            self.log(frame, "ends")
            return frame.result
        except BaseException as error:
            self.log(frame, f"ends with {describe_error(error)}")
            raise

    def target(self, reference):
        kind = reference["kind"]
        if kind == "task":
            return self.tasks.get(reference["slot"])
        if kind == "future":
            return self.futures.get(reference["slot"])
        if kind == "group":
            return self.groups.get(reference["slot"])
        return self.main

    def awaitable(self, frame, reference):
        body = reference.get("body")
        if body:
            return Entry(self.coro(body), body, f"b{body}")
        target = self.target(reference)
        return target if target and target.level > frame.level else None

    def awaitables(self, frame, items):
        made = []
        for item in items:
            same = item["kind"] == "same"
            made.append(made[item["index"] - 1] if same else self.awaitable(frame, item))
        entries = [entry for entry in made if entry]
        level = min((entry.level for entry in entries), default=math.inf)
        return [entry.value for entry in entries], level, entries

    def gather(self, frame, statement):
        values, level, _ = self.awaitables(frame, statement["items"])
        return asyncio.gather(*values, return_exceptions=statement["return_exceptions"]), level

    def callback(self, frame, statement):
        inner = Frame(statement["label"], frame.level)

        def call(future=None):
            self.log(inner, f"is called, done {lower(future.done())}" if future is not None else "is called")
            for action in statement["actions"]:
                self.statement_now(inner, action)

        return call

    # ---- statements that do not wait ----

    def now_log(self, frame, statement):
        self.log(frame, statement["label"])

    def now_spawn(self, frame, statement):
        body = statement["body"]
        task = self.loop.create_task(self.coro(body))
        self.tasks[statement["slot"]] = Entry(task, body, f"t{statement['slot']}")

    def now_cancel(self, frame, statement):
        target = self.target(statement["target"])
        if target:
            self.log(frame, f"cancel {target.name} {lower(target.value.cancel(statement.get('message')))}")

    def now_set_result(self, frame, statement):
        self.target(statement["target"]).value.set_result(statement["value"])

    def now_set_exception(self, frame, statement):
        self.target(statement["target"]).value.set_exception(UserError(statement["label"]))

    def now_query(self, frame, statement):
        target = self.target(statement["target"])
        if not target:
            return
        value = target.value
        cancelling = f" cancelling {value.cancelling()}" if statement["target"]["kind"] == "task" else ""
        self.log(frame, f"{target.name} done {lower(value.done())} cancelled {lower(value.cancelled())}{cancelling}")

    def now_result(self, frame, statement):
        target = self.target(statement["target"])
        if target:
            self.log(frame, f"{target.name} has result {describe(target.value.result())}")

    def now_exception(self, frame, statement):
        target = self.target(statement["target"])
        if target:
            error = target.value.exception()
            self.log(frame, f"{target.name} has exception {'nil' if error is None else describe_error(error)}")

    def now_call_soon(self, frame, statement):
        self.handles[statement["slot"]] = self.loop.call_soon(self.callback(frame, statement))

    def now_call_later(self, frame, statement):
        self.handles[statement["slot"]] = self.loop.call_later(statement["delay"], self.callback(frame, statement))

    def now_cancel_handle(self, frame, statement):
        handle = self.handles.get(statement["slot"])
        if handle:
            handle.cancel()
            self.log(frame, f"handle cancelled {lower(handle.cancelled())}")

    def now_add_done_callback(self, frame, statement):
        target = self.target(statement["target"])
        if target:
            callback = self.callback(frame, statement)
            self.callbacks[statement["slot"]] = callback
            target.value.add_done_callback(callback)

    def now_remove_done_callback(self, frame, statement):
        target, callback = self.target(statement["target"]), self.callbacks.get(statement["slot"])
        if target and callback:
            self.log(frame, f"removed {target.value.remove_done_callback(callback)}")

    def now_make_gather(self, frame, statement):
        group, level = self.gather(frame, statement)
        self.groups[statement["slot"]] = Entry(group, level, f"g{statement['slot']}")

    def now_make_shield(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            group = asyncio.shield(entry.value)
            self.groups[statement["slot"]] = Entry(group, entry.level, f"g{statement['slot']}")

    def now_lock_release(self, frame, statement):
        self.lock.release()

    def now_event_set(self, frame, statement):
        self.event.set()

    def now_event_clear(self, frame, statement):
        self.event.clear()

    def now_semaphore_release(self, frame, statement):
        self.semaphore.release()

    def now_queue_put_nowait(self, frame, statement):
        self.queues[statement["slot"] - 1].put_nowait(statement["value"])

    def now_queue_get_nowait(self, frame, statement):
        self.log(frame, f"queue gives {self.queues[statement['slot'] - 1].get_nowait()}")

    def now_queue_task_done(self, frame, statement):
        self.queues[statement["slot"] - 1].task_done()

    def now_notify(self, frame, statement):
        self.condition.notify(statement["count"])

    def now_reschedule(self, frame, statement):
        if frame.timeouts:
            delay = statement.get("delay")
            frame.timeouts[-1].reschedule(None if delay is None else self.loop.time() + delay)

    def now_variable_get(self, frame, statement):
        self.log(frame, f"variable {variable.get()}")

    # ---- statements for tasks ----

    async def wait_return(self, frame, statement):
        frame.result = statement["value"]
        return True

    async def wait_raise(self, frame, statement):
        raise UserError(statement["label"])

    async def wait_repeat(self, frame, statement):
        for _ in range(statement["count"]):
            if await self.block(frame, statement["block"]):
                return True

    async def wait_try(self, frame, statement):
        try:
            return await self.block(frame, statement["block"])
        except Exception if "errors_only" in statement else BaseException as error:
            self.log(frame, f"catches {describe_error(error)}")
            if await self.block(frame, statement["handler"]):
                return True
            if "rethrow" in statement:
                raise

    async def wait_finally(self, frame, statement):
        try:
            return await self.block(frame, statement["block"])
        finally:
            self.log(frame, "finally")
            await self.block(frame, statement["final"])

    async def wait_turn(self, frame, statement):
        await asyncio.sleep(0)

    async def wait_sleep(self, frame, statement):
        await asyncio.sleep(statement["delay"])

    async def wait_await(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            self.log(frame, f"{entry.name} gives {describe(await entry.value)}")

    async def wait_gather(self, frame, statement):
        self.log(frame, f"gather gives {describe(await self.gather(frame, statement)[0])}")

    async def wait_await_itself(self, frame, statement):
        task = asyncio.current_task()
        try:
            await task
        finally:
            task._asyncio_future_blocking = False  # as it was: otherwise the next time fails without a turn

    async def wait_cancel_itself(self, frame, statement):
        self.log(frame, f"cancels itself {lower(asyncio.current_task().cancel(statement.get('message')))}")

    async def wait_uncancel(self, frame, statement):
        self.log(frame, f"uncancel {asyncio.current_task().uncancel()}")

    async def wait_lock(self, frame, statement):
        async with self.lock:
            self.log(frame, "has the lock")
            return await self.block(frame, statement["block"])

    async def wait_event_wait(self, frame, statement):
        await self.event.wait()
        self.log(frame, "event")

    async def wait_semaphore(self, frame, statement):
        async with self.semaphore:
            self.log(frame, "has the semaphore")
            return await self.block(frame, statement["block"])

    async def wait_semaphore_acquire(self, frame, statement):
        await self.semaphore.acquire()
        self.log(frame, "took the semaphore")

    async def wait_queue_put(self, frame, statement):
        await self.queues[statement["slot"] - 1].put(statement["value"])
        self.log(frame, f"queue takes {statement['value']}")

    async def wait_queue_get(self, frame, statement):
        self.log(frame, f"queue gives {await self.queues[statement['slot'] - 1].get()}")

    async def wait_queue_join(self, frame, statement):
        await self.queues[statement["slot"] - 1].join()
        self.log(frame, "queue joined")

    async def wait_condition(self, frame, statement):
        async with self.condition:
            self.log(frame, "has the condition")
            return await self.block(frame, statement["block"])

    async def wait_condition_wait(self, frame, statement):
        await self.condition.wait()
        self.log(frame, "condition")

    async def wait_barrier_wait(self, frame, statement):
        self.log(frame, f"barrier {await self.barrier.wait()}")

    async def wait_barrier_reset(self, frame, statement):
        await self.barrier.reset()

    async def wait_barrier_abort(self, frame, statement):
        await self.barrier.abort()

    async def wait_wait(self, frame, statement):
        values, _, entries = self.awaitables(frame, statement["items"])
        if not values:
            return
        done, pending = await asyncio.wait(
            values, timeout=statement.get("timeout"), return_when=statement["return_when"]
        )
        names = {}
        for entry in entries:
            names.setdefault(entry.value, entry.name)

        def text(futures):
            return " ".join(name for value, name in names.items() if value in futures)

        self.log(frame, f"wait done [{text(done)}] pending [{text(pending)}]")

    async def wait_as_completed(self, frame, statement):
        values, _, _ = self.awaitables(frame, statement["items"])
        count = 0
        async for future in as_completed(values, statement.get("timeout")):
            count += 1
            try:
                self.log(frame, f"completed {describe(await future)}")
            except BaseException as error:
                self.log(frame, f"completed {describe_error(error)}")
            if count == statement.get("limit"):
                break
        self.log(frame, "as_completed ends")

    async def wait_wait_for(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            result = await wait_for(entry.value, statement.get("timeout"))
            self.log(frame, f"wait_for {entry.name} gives {describe(result)}")

    async def wait_timeout(self, frame, statement):
        scope = Timeout(statement.get("timeout"))
        try:
            async with scope:
                frame.timeouts.append(scope)
                return await self.block(frame, statement["block"])
        finally:
            frame.timeouts.pop()
            self.log(frame, f"timeout expired {lower(scope.expired())}")

    async def wait_await_shield(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            self.log(frame, f"shield {entry.name} gives {describe(await asyncio.shield(entry.value))}")

    async def wait_group(self, frame, statement):
        try:
            async with TaskGroup() as group:
                frame.groups.append(group)
                return await self.block(frame, statement["block"])
        finally:
            frame.groups.pop()
            self.log(frame, "group ends")

    async def wait_group_spawn(self, frame, statement):
        if frame.groups:
            body = statement["body"]
            task = frame.groups[-1].create_task(self.coro(body))
            self.tasks[statement["slot"]] = Entry(task, body, f"t{statement['slot']}")

    async def wait_variable_set(self, frame, statement):
        variable.set(statement["value"])

    # ---- programs ----

    def log_states(self, frame):
        def state(future):
            if not future.done():
                return "pending"
            if future.cancelled():
                return "cancelled"
            error = future.exception()
            if error is not None:
                return "failed " + describe_error(error)
            return "result " + describe(future.result())

        for slots in (self.tasks, self.futures, self.groups):
            for _, entry in sorted(slots.items()):
                if slots is not self.futures or entry.value.done():
                    self.log(frame, f"{entry.name} is {state(entry.value)}")
        for queue in self.queues:
            if not queue.empty():
                self.log(frame, f"queue holds {queue.qsize()}")

    def end_of_time(self):
        self.tracing = False

    async def run_main(self):
        objects = self.program["objects"]
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: None)
        self.loop.call_later(END_OF_TIME, self.end_of_time)
        self.main = Entry(asyncio.current_task(), 0, "main")
        for slot in range(1, objects["futures"] + 1):
            self.futures[slot] = Entry(self.loop.create_future(), math.inf, f"f{slot}")
        self.queues = [getattr(asyncio, queue["kind"])(queue["maxsize"]) for queue in objects["queues"]]
        self.semaphore = (asyncio.BoundedSemaphore if objects["bounded"] else asyncio.Semaphore)(objects["semaphore"])
        self.lock = Lock()
        self.event = asyncio.Event()
        self.condition = Condition()
        self.barrier = asyncio.Barrier(2)
        self.barrier._cond = Condition()
        frame = Frame("main", 0)
        try:
            await self.block(frame, self.program["main"])
            self.log(frame, "ends")
        except BaseException as error:
            self.log(frame, f"ends with {describe_error(error)}")
        self.log_states(frame)
        self.tracing = False


now = {name[4:]: method for name, method in vars(Interpreter).items() if name.startswith("now_")}
waiting = {name[5:]: method for name, method in vars(Interpreter).items() if name.startswith("wait_")}

# For these the C task of 3.11 differs from the newer ones, or from agather.
NEWER = ['"message"', '"uncancel"', '"timeout"', '"wait_for"', '"group"']

kept = []  # pending tasks must not be collected: their finally blocks would run


def run(program):
    interpreter = Interpreter(program)
    loop = VirtualLoop()
    text = json.dumps(program)
    task_class = Task if any(word in text for word in NEWER) else asyncio.Task

    def make_task(loop, coro, **options):
        task = task_class(coro, loop=loop, **options)
        kept.append(task)
        return task

    loop.set_task_factory(make_task)
    main = contextvars.copy_context().run(loop.create_task, interpreter.run_main())
    try:
        loop.run_until_complete(main)
    except Deadlock:
        interpreter.trace.append("deadlock")
    except BaseException as error:
        interpreter.trace.append(f"run raises {describe_error(error)}")
    kept.append(loop)
    return interpreter.trace


def main():
    warnings.simplefilter("ignore")
    with open(sys.argv[1], encoding="utf-8") as file:
        programs = json.load(file)
    traces = [run(program) for program in programs]
    json.dump(traces, sys.stdout)
    sys.stdout.flush()


try:
    main()
    status = 0
except BaseException:
    traceback.print_exc()
    status = 1
os._exit(status)  # without the ends of what still waits
