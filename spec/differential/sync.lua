-- Statements about locks, events, conditions, semaphores, barriers and queues: a part of interpreter.lua, as sync.py.
local agather = require "agather"
local describe = require("spec.differential.shown").value

return function(run, Interpreter)
  function Interpreter:make_objects(objects)
    self.queues = {}
    for slot, queue in ipairs(objects.queues) do self.queues[slot] = agather[queue.kind](queue.maxsize) end
    self.semaphore = agather[objects.bounded and "BoundedSemaphore" or "Semaphore"](objects.semaphore)
    self.lock = agather.Lock()
    self.event = agather.Event()
    self.condition = agather.Condition(objects.shared and self.lock or nil)
    self.barrier = agather.Barrier(objects.parties or 2)
    self.stock = 0
  end

  function run.lock_release(self) self.lock:release() end
  function run.event_set(self) self.event:set() end
  function run.event_clear(self) self.event:clear() end
  function run.semaphore_release(self) self.semaphore:release() end
  function run.queue_put_nowait(self, _, statement) self.queues[statement.slot]:put_nowait(statement.value) end

  function run.queue_get_nowait(self, frame, statement)
    self:log(frame, "queue gives " .. describe(self.queues[statement.slot]:get_nowait()))
  end

  function run.queue_task_done(self, _, statement) self.queues[statement.slot]:task_done() end
  function run.notify(self, _, statement) self.condition:notify(statement.count) end

  function run.lock(self, frame, statement)
    local _ <close> = self.lock:acquire()
    self:log(frame, "has the lock")
    return self:block(frame, statement.block)
  end

  function run.event_wait(self, frame)
    self:log(frame, ("event %s"):format(self.event:wait()))
  end

  function run.semaphore(self, frame, statement)
    local _ <close> = self.semaphore:acquire()
    self:log(frame, "has the semaphore")
    return self:block(frame, statement.block)
  end

  function run.semaphore_acquire(self, frame)
    self.semaphore:acquire()
    self:log(frame, "took the semaphore")
  end

  function run.queue_put(self, frame, statement)
    self.queues[statement.slot]:put(statement.value)
    self:log(frame, "queue takes " .. statement.value)
  end

  function run.queue_get(self, frame, statement)
    self:log(frame, "queue gives " .. describe(self.queues[statement.slot]:get()))
  end

  function run.queue_join(self, frame, statement)
    self.queues[statement.slot]:join()
    self:log(frame, "queue joined")
  end

  function run.condition(self, frame, statement)
    local _ <close> = self.condition:acquire()
    self:log(frame, "has the condition")
    return self:block(frame, statement.block)
  end

  function run.condition_wait(self, frame)
    self:log(frame, ("condition %s"):format(self.condition:wait()))
  end

  function run.barrier_wait(self, frame) self:log(frame, ("barrier %d"):format(self.barrier:wait())) end
  function run.barrier_reset(self) self.barrier:reset() end
  function run.barrier_abort(self) self.barrier:abort() end

  function run.condition_release(self) self.condition:release() end
  function run.notify_all(self) self.condition:notify_all() end
  function run.stock(self, _, statement) self.stock = self.stock + statement.count end
  function run.queue_shutdown(self, _, statement) self.queues[statement.slot]:shutdown(statement.immediate) end

  function run.look_at_sync(self, frame)
    local barrier = self.barrier
    self:log(frame, ("lock %s event %s semaphore %s condition %s barrier %d/%d broken %s"):format(
      self.lock:locked(), self.event:is_set(), self.semaphore:locked(), self.condition:locked(), barrier:n_waiting(),
      barrier:parties(), barrier:broken()))
  end

  function run.look_at_queue(self, frame, statement)
    local queue = self.queues[statement.slot]
    self:log(frame, ("queue of %d has %d empty %s full %s"):format(
      queue:maxsize(), queue:qsize(), queue:empty(), queue:full()))
  end

  function run.lock_acquire(self, frame)
    self.lock:acquire()
    self:log(frame, "took the lock")
  end

  function run.condition_acquire(self, frame)
    self.condition:acquire()
    self:log(frame, "took the condition")
  end

  function run.condition_wait_for(self, frame, statement)
    local function enough()
      self:log(frame, "looks")
      return self.stock >= statement.count and "stock " .. self.stock
    end
    self:log(frame, ("condition after %s"):format(self.condition:wait_for(enough)))
  end

  function run.queue_items(self, frame, statement)
    local left = statement.count
    for item in self.queues[statement.slot]:items() do
      self:log(frame, "queue gives " .. item)
      left = left - 1
      if left == 0 then break end
    end
    self:log(frame, "items end")
  end
end
