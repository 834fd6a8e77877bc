"""Statements about locks, events, conditions, semaphores, barriers and queues: a part of interpreter.py, as sync.lua."""
import asyncio

import newer
from frames import kept
from shown import describe, lower


class Synchronizing:
    def make_objects(self, objects):
        self.queues = [getattr(newer, queue["kind"])(queue["maxsize"]) for queue in objects["queues"]]
        self.semaphore = (asyncio.BoundedSemaphore if objects["bounded"] else asyncio.Semaphore)(objects["semaphore"])
        self.lock = newer.Lock()
        self.event = asyncio.Event()
        self.condition = newer.Condition(self.lock if objects.get("shared") else None)
        self.barrier = asyncio.Barrier(objects.get("parties", 2))
        self.barrier._cond = newer.Condition()
        self.stock = 0

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

    async def wait_lock(self, frame, statement):
        async with self.lock:
            self.log(frame, "has the lock")
            return await self.block(frame, statement["block"])

    async def wait_event_wait(self, frame, statement):
        self.log(frame, f"event {lower(await self.event.wait())}")

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
        self.log(frame, f"condition {lower(await self.condition.wait())}")

    async def wait_barrier_wait(self, frame, statement):
        self.log(frame, f"barrier {await self.barrier.wait()}")

    async def wait_barrier_reset(self, frame, statement):
        await self.barrier.reset()

    async def wait_barrier_abort(self, frame, statement):
        await self.barrier.abort()

    def now_condition_release(self, frame, statement):
        self.condition.release()

    def now_notify_all(self, frame, statement):
        self.condition.notify_all()

    def now_stock(self, frame, statement):
        self.stock += statement["count"]

    def now_queue_shutdown(self, frame, statement):
        self.queues[statement["slot"] - 1].shutdown("immediate" in statement)

    def now_look_at_sync(self, frame, statement):
        barrier = self.barrier
        self.log(frame, f"lock {lower(self.lock.locked())} event {lower(self.event.is_set())} "
                 f"semaphore {lower(self.semaphore.locked())} condition {lower(self.condition.locked())} "
                 f"barrier {barrier.n_waiting}/{barrier.parties} broken {lower(barrier.broken)}")

    def now_look_at_queue(self, frame, statement):
        queue = self.queues[statement["slot"] - 1]
        self.log(frame, f"queue of {queue.maxsize} has {queue.qsize()} empty {lower(queue.empty())} "
                 f"full {lower(queue.full())}")

    async def wait_lock_acquire(self, frame, statement):
        await self.lock.acquire()
        self.log(frame, "took the lock")

    async def wait_condition_acquire(self, frame, statement):
        await self.condition.acquire()
        self.log(frame, "took the condition")

    async def wait_condition_wait_for(self, frame, statement):
        def enough():
            self.log(frame, "looks")
            return self.stock >= statement["count"] and f"stock {self.stock}"

        self.log(frame, f"condition after {await self.condition.wait_for(enough)}")

    async def wait_queue_items(self, frame, statement):
        left = statement["count"]
        items = self.queues[statement["slot"] - 1].items()
        kept.append(items)
        async for item in items:
            self.log(frame, f"queue gives {item}")
            left -= 1
            if left == 0:
                break
        self.log(frame, "items end")
