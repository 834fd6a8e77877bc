"""Runs programs of generator.lua with CPython's asyncio on a virtual clock: the other half of interpreter.lua.

Usage: python3 interpreter.py PROGRAMS.json
PROGRAMS.json holds a list of programs. Prints a JSON list of traces, each a list of lines.

Statement for statement the same as interpreter.lua and its parts: change both together. Python is 3.11 or newer; newer.py
has what agather takes from newer ones or does otherwise on purpose.
"""
import asyncio
import contextvars
import json
import math
import os
import re
import sys
import traceback
import warnings

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import newer
from contexts import Contexts
from frames import Entry, Frame, kept
from generators import Generators
from loops import Loops
from shown import UserError, describe, describe_error, lower
from sync import Synchronizing

MOST_COROS, MOST_STATEMENTS = 60, 3000
END_OF_TIME = 1000


class Interpreter(Synchronizing, Contexts, Generators, Loops):
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
        self.generators = {}
        self.closed_scope = None
        self.mains = 0
        self.make_contexts()

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

    def new_frame(self, number):
        self.coros += 1
        statements = self.program["bodies"][number - 1] if self.coros <= MOST_COROS else []
        return Frame(f"b{number}.{self.coros}", number), statements

    def coro(self, number):
        return self.body(*self.new_frame(number))

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
        return newer.gather(*values, return_exceptions=statement["return_exceptions"]), level

    def callback(self, frame, statement):
        inner = Frame(statement["label"], frame.level)

        def call(given=None):
            if asyncio.isfuture(given):
                self.log(inner, f"is called, done {lower(given.done())}")
            else:
                self.log(inner, f"is called with {describe(given)}")
            for action in statement["actions"]:
                self.statement_now(inner, action)

        return call

    # ---- statements that do not wait ----

    def now_log(self, frame, statement):
        self.log(frame, statement["label"])

    def now_spawn(self, frame, statement):
        body = statement["body"]
        context = self.contexts.get(statement.get("context"))
        task = self.loop.create_task(self.coro(body), name=statement.get("name"), context=context)
        if "eager" in statement:
            task.start_eagerly()
        self.tasks[statement["slot"]] = Entry(task, body, f"t{statement['slot']}")

    def now_ensure_future(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            future = asyncio.ensure_future(entry.value)
            if "body" not in statement["target"]:
                self.log(frame, f"{entry.name} stays itself {lower(future is entry.value)}")
            else:
                self.tasks[statement["slot"]] = Entry(future, entry.level, f"t{statement['slot']}")

    def now_new_future(self, frame, statement):
        self.futures[statement["slot"]] = Entry(self.loop.create_future(), math.inf, f"f{statement['slot']}")

    def now_coro_close(self, frame, statement):
        coro = self.coro(statement["body"])
        coro.close()
        if "again" in statement:
            coro.close()

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
        self.log(frame, f"{target.name} done {lower(value.done())} cancelled {lower(value.cancelled())}{cancelling} "
                 f"here {lower(value.get_loop() is self.loop and asyncio.isfuture(value))}")

    def now_result(self, frame, statement):
        target = self.target(statement["target"])
        if target:
            self.log(frame, f"{target.name} has result {describe(target.value.result())}")

    def now_exception(self, frame, statement):
        target = self.target(statement["target"])
        if target:
            error = target.value.exception()
            self.log(frame, f"{target.name} has exception {'nil' if error is None else describe_error(error)}")

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

    def now_reschedule(self, frame, statement):
        if frame.timeouts:
            delay = statement.get("delay")
            frame.timeouts[-1].reschedule(None if delay is None else self.loop.time() + delay)

    def now_reschedule_closed(self, frame, statement):
        if self.closed_scope is not None:
            self.closed_scope.reschedule(self.loop.time() + 1)

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
        result = await asyncio.sleep(statement["delay"], statement.get("value"))
        if result is not None:
            self.log(frame, f"slept {result}")

    async def wait_await(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            self.log(frame, f"{entry.name} gives {describe(await entry.value)}")

    async def wait_await_twice(self, frame, statement):
        coro = self.coro(statement["body"])
        self.log(frame, f"once {describe(await coro)}")
        await coro

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
        futures = newer.as_completed(values, statement.get("timeout"))
        kept.append(futures)
        async for future in futures:
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
            result = await newer.wait_for(entry.value, statement.get("timeout"))
            self.log(frame, f"wait_for {entry.name} gives {describe(result)}")

    async def wait_timeout(self, frame, statement):
        seconds = statement.get("timeout")
        scope = newer.Timeout(None if seconds is None else self.loop.time() + seconds)
        try:
            async with scope:
                frame.timeouts.append(scope)
                return await self.block(frame, statement["block"])
        finally:
            frame.timeouts.pop()
            self.closed_scope = scope
            when = "nil" if scope.deadline is None else f"{scope.deadline:g}"
            self.log(frame, f"timeout of {when} expired {lower(scope.expired())}")

    async def wait_await_shield(self, frame, statement):
        entry = self.awaitable(frame, statement["target"])
        if entry:
            self.log(frame, f"shield {entry.name} gives {describe(await asyncio.shield(entry.value))}")

    async def wait_group(self, frame, statement):
        try:
            async with newer.TaskGroup() as group:
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

    def end_of_time(self, task=None):
        self.tracing = False

    def on_exception(self, loop, context):
        if context["message"].startswith("Exception in callback"):
            self.log(Frame("handler", 0), f"callback raises {describe_error(context['exception'])}")
        elif context["message"].startswith("told"):
            self.log(Frame("handler", 0), f"{context['message']} {describe(context.get('exception'))}")

    def start(self):
        objects = self.program["objects"]
        self.loop = asyncio.get_running_loop()
        self.first_number = int(re.fullmatch(r"Task-(\d+)", asyncio.current_task().get_name())[1])
        self.loop.set_exception_handler(self.on_exception)
        self.loop.call_later(END_OF_TIME, self.end_of_time)
        for slot in range(1, objects["futures"] + 1):
            self.futures[slot] = Entry(self.loop.create_future(), math.inf, f"f{slot}")
        self.make_objects(objects)

    async def run_main(self, statements):
        self.mains += 1
        if self.mains == 1:
            self.start()
        frame = Frame("main" if self.mains == 1 else f"main{self.mains}", 0)
        self.main = Entry(asyncio.current_task(), 0, frame.name)
        try:
            await self.block(frame, statements)
            self.log(frame, "ends")
        except BaseException as error:
            self.log(frame, f"ends with {describe_error(error)}")
        self.log_states(frame)


def methods(prefix):
    names = [name for name in dir(Interpreter) if name.startswith(prefix)]
    return {name[len(prefix):]: getattr(Interpreter, name) for name in names}


now, waiting = methods("now_"), methods("wait_")

# For these the C task of 3.11 differs from the newer ones, or from agather.
NEWER = ['"message"', '"uncancel"', '"timeout"', '"wait_for"', '"group"', '"eager"', '"task_context_get"']


def shut_down(interpreter, loop):
    """As asyncio.Runner. Compared only where one task is left, for asyncio cancels several in no order, and until it has
    ended; not at all where it goes on or another begins: agather cancels those again."""

    async def others():
        return asyncio.all_tasks() - {asyncio.current_task()}

    left = loop.run_until_complete(others())
    if len(left) != 1:
        return
    last = left.pop()
    if last.done():
        return
    interpreter.trace.append("shutdown")
    last.add_done_callback(interpreter.end_of_time)
    made = len(kept)
    try:
        asyncio.runners._cancel_all_tasks(loop)
        clean = len(kept) == made and not loop.run_until_complete(others())
    except (newer.Deadlock, RuntimeError):  # it goes on for ever, or stopped the loop
        clean = False
    if not clean:
        interpreter.trace.append("unclear")


def run(program):
    interpreter = Interpreter(program)
    loop = newer.VirtualLoop()
    text = json.dumps(program)
    task_class = newer.Task if any(word in text for word in NEWER) else asyncio.Task

    def make_task(loop, coro, **options):
        task = task_class(coro, loop=loop, **options)
        kept.append(task)
        return task

    loop.set_task_factory(make_task)
    context = contextvars.copy_context()
    for statements in [program["main"], *program.get("mains", ())]:  # as asyncio.Runner
        main = loop.create_task(interpreter.run_main(statements), context=context)
        try:
            loop.run_until_complete(main)
        except newer.Deadlock:
            interpreter.trace.append("deadlock")
            break
        except BaseException as error:
            interpreter.trace.append(f"run raises {describe_error(error)}")
        newer.forget_stop(loop)
    else:
        shut_down(interpreter, loop)
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
