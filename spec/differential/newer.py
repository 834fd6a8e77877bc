"""asyncio as agather has it, for interpreter.py: a loop with a virtual clock, and what is newer than Python 3.11, made
here, so that every Python gives the same traces. Where agather departs on purpose , this follows agather:
- timers with equal deadlines are due in order of creation;
- all awaiters of a cancelled task get the same message, and a gather in a gather keeps its message;
- TaskGroup cancels its tasks in order of creation, as_completed and wait take theirs in the order of the list;
- a cancelled waiter of a condition hands on the notification that it got, and only then (3.13: always);
- the end of a lock's scope releases the lock only if the task still holds it;
- a run whose main ends in the iteration in which the loop is stopped leaves nothing that stops the next run.
"""
import asyncio
import heapq
import itertools
from asyncio import tasks


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


def forget_stop(loop):
    """Takes the end of a run's main from what is ready, where loop.stop() was quicker."""
    left = [handle for handle in loop._ready if handle._callback is not asyncio.base_events._run_until_complete_cb]
    loop._ready.clear()
    loop._ready.extend(left)


# ---- what is newer than 3.11, or where agather departs ----


class Task(tasks._PyTask):
    """uncancel of 3.13; one error for all awaiters; eager_start of 3.14."""

    ended_eagerly = False

    def start_eagerly(self):
        loop = self._loop
        loop._ready.pop()  # its first step, that would be in the next iteration
        before = tasks.current_task(loop)
        if before is not None:
            tasks._leave_task(loop, before)
        try:
            self._context.run(self._Task__step)
        finally:
            if before is not None:
                tasks._enter_task(loop, before)
        self.ended_eagerly = self.done()

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


def gather(*awaitables, return_exceptions):
    """asyncio.gather; done at once when every child ended in its eager start (3.12)."""
    outer = asyncio.gather(*awaitables, return_exceptions=return_exceptions)
    children = dict.fromkeys(awaitables)
    if children and all(getattr(child, "ended_eagerly", False) for child in children):
        ready = asyncio.get_running_loop()._ready
        for handle in reversed([ready.pop() for _ in children]):
            handle._run()
    return outer


class Timeout:
    """asyncio.timeout_at of 3.12."""

    def __init__(self, deadline):
        self.loop = asyncio.get_running_loop()
        self.deadline = deadline
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


def timeout(delay):
    return Timeout(None if delay is None else asyncio.get_running_loop().time() + delay)


async def wait_for(awaitable, seconds):
    """asyncio.wait_for of 3.12."""
    if seconds is not None and seconds <= 0:
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
    async with timeout(seconds):
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
    def __init__(self, lock=None):
        super().__init__(lock or Lock())

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


class QueueShutDown(Exception):
    pass


class ShutDown:
    """shutdown of 3.13, for each kind of queue; items."""

    is_shut_down = False

    async def put(self, item):
        while self.full():
            if self.is_shut_down:
                raise QueueShutDown
            putter = self._get_loop().create_future()
            self._putters.append(putter)
            try:
                await putter
            except BaseException:
                putter.cancel()
                if putter in self._putters:
                    self._putters.remove(putter)
                if not self.full() and not putter.cancelled():
                    self._wakeup_next(self._putters)
                raise
        self.put_nowait(item)

    def put_nowait(self, item):
        if self.is_shut_down:
            raise QueueShutDown
        super().put_nowait(item)

    async def get(self):
        while self.empty():
            if self.is_shut_down:
                raise QueueShutDown
            getter = self._get_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except BaseException:
                getter.cancel()
                if getter in self._getters:
                    self._getters.remove(getter)
                if not self.empty() and not getter.cancelled():
                    self._wakeup_next(self._getters)
                raise
        return self.get_nowait()

    def get_nowait(self):
        if self.empty() and self.is_shut_down:
            raise QueueShutDown
        return super().get_nowait()

    async def items(self):
        while True:
            try:
                item = await self.get()
            except QueueShutDown:
                return
            yield item

    def shutdown(self, immediate):
        self.is_shut_down = True
        if immediate:
            while not self.empty():
                self._get()
                if self._unfinished_tasks > 0:
                    self._unfinished_tasks -= 1
            if self._unfinished_tasks == 0:
                self._finished.set()
        for waiters in (self._getters, self._putters):
            while waiters:
                waiter = waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)


class Queue(ShutDown, asyncio.Queue):
    pass


class PriorityQueue(ShutDown, asyncio.PriorityQueue):
    pass


class LifoQueue(ShutDown, asyncio.LifoQueue):
    pass
