---@meta agather
-- Annotations of what is written in C, for language servers and readers; nothing loads this file. What is written in
-- Lua carries its annotations where it is defined. spec/lua/meta_spec.lua checks that names agree with the module.

---@class agather
---@field _VERSION string
---@field FIRST_COMPLETED string for agather.wait
---@field FIRST_EXCEPTION string
---@field ALL_COMPLETED string
local agather = {}

---@alias agather.Awaitable agather.Future|agather.Coroutine|function|thread|table anything that await takes

-- Running

--- Makes a loop, runs main(...) as its main task, cancels what is left, lets it finish and reports what nobody asked
--- for. Inside a running task: runs main as a task and waits for it. asyncio.run, 3.11.
--- Raises main's error, with the traceback of the task that failed and who awaited it; DeadlockError;
--- KeyboardInterrupt (SIGINT cancels the main task, a second one raises at once).
---@param main function|agather.Coroutine|thread
---@return any ... main's results
function agather.run(main, ...) end

--- Keeps one loop and one context over several runs. asyncio.Runner, 3.11.
---@param options? { clock?: "real"|"virtual", debug?: boolean } virtual: time stands still while anything can run
---@return agather.Runner
function agather.Runner(options) end

---@class agather.Runner
local Runner = {}
---@return any ... main's results
function Runner:run(main, ...) end
---@return agather.Loop
function Runner:get_loop() end
--- Shuts down as agather.run does; again is harmless.
function Runner:close() end

--- The loop that runs; a RuntimeError outside one. asyncio.get_running_loop, 3.11.
---@return agather.Loop
function agather.get_running_loop() end

--- A loop of its own, for run_until_complete and run_forever; close it. asyncio.new_event_loop, 3.11.
---@return agather.Loop
function agather.new_event_loop() end

---@class agather.Loop
local Loop = {}
--- Calls f(...) in the next iteration.
---@return agather.Handle
function Loop:call_soon(f, ...) end
---@param seconds number
---@return agather.Handle
function Loop:call_later(seconds, f, ...) end
---@param when number on the clock of loop:time()
---@return agather.Handle
function Loop:call_at(when, f, ...) end
---@return number seconds on a clock that never goes back
function Loop:time() end
---@return agather.Future
function Loop:create_future() end
---@param awaitable agather.Awaitable
---@param options? { name?: string, context?: agather.Context, eager_start?: boolean }
---@return agather.Task
function Loop:create_task(awaitable, options) end
--- Ends run_forever after this iteration.
function Loop:stop() end
function Loop:run_forever() end
---@return any ... results of the awaitable
function Loop:run_until_complete(awaitable) end
---@return boolean
function Loop:is_running() end
---@return boolean
function Loop:is_closed() end
--- Ends the loop; tasks that are pending are reported.
function Loop:close() end
--- f(context) gets what nobody else does: context.message, .exception, .task or .future. nil: print to stderr.
---@param f? fun(context: table)
function Loop:set_exception_handler(f) end
---@param context table
function Loop:call_exception_handler(context) end
---@param on boolean remember where coros were made
function Loop:set_debug(on) end
---@return boolean
function Loop:get_debug() end

---@class agather.Handle
local Handle = {}
function Handle:cancel() end
---@return boolean
function Handle:cancelled() end
---@return number? when on the loop's clock; nil for call_soon
function Handle:when() end

-- Tasks, futures, coros

--- A function whose calls run nothing and return coros.
---@param f function
---@param name? string for tracebacks and reports
---@return fun(...): agather.Coroutine
function agather.async(f, name) end

--- Waits for a future or task; runs a coro, function or thread inline in the calling task.
---@async
---@param awaitable agather.Awaitable
---@return any ... its results; raises its error, the very value
function agather.await(awaitable) end

--- Schedules a coro as a task. asyncio.create_task, 3.11; eager_start runs its first step at once (3.14).
---@param awaitable agather.Coroutine|function|thread
---@param options? { name?: string, context?: agather.Context, eager_start?: boolean }
---@return agather.Task
function agather.create_task(awaitable, options) end

--- A task that runs f(...).
---@param f function
---@return agather.Task
function agather.spawn(f, ...) end

--- The future or task itself, or a new task of what is not scheduled yet. asyncio.ensure_future, 3.11.
---@return agather.Future
function agather.ensure_future(awaitable) end

--- Waits; 0 or less: one turn of the loop. asyncio.sleep, 3.11.
---@async
---@param seconds number
---@return any ... the other arguments
function agather.sleep(seconds, ...) end

---@return agather.Task? task nil outside a task
function agather.current_task() end

---@return agather.Task[] tasks of the running loop that are not done
function agather.all_tasks() end

---@return agather.Future
function agather.future() end

--- Whether v is a future, a task, a coro, or a value whose metatable has __await.
---@return boolean
function agather.is_awaitable(v) end

---@class agather.Coroutine
local Coroutine = {}
---@async
function Coroutine:await() end
--- It will not run, and nobody is told that it was never awaited.
function Coroutine:close() end

---@class agather.Future
local Future = {}
---@async
---@return any ... its results; raises its error
function Future:await() end
---@return boolean
function Future:done() end
---@return boolean
function Future:cancelled() end
---@return any ... raises InvalidStateError while it is pending, its error, or CancelledError
function Future:result() end
---@return table? error object; nil when it has a result; raises as result does
function Future:exception() end
function Future:set_result(...) end
---@param err any
function Future:set_exception(err) end
---@param message? any
---@return boolean accepted
function Future:cancel(message) end
--- f(future) in the iteration after it is done.
---@param f fun(future: agather.Future)
function Future:add_done_callback(f) end
---@return integer removed
function Future:remove_done_callback(f) end
---@return agather.Loop?
function Future:get_loop() end

---@class agather.Task: agather.Future
local Task = {}
---@return string
function Task:get_name() end
---@param name string
function Task:set_name(name) end
---@return agather.Task
function Task:get_coro() end
---@return integer requests for cancellation that were not taken back
function Task:cancelling() end
---@return integer
function Task:uncancel() end
---@return string traceback of where it waits
function Task:traceback() end
---@return agather.Context
function Task:get_context() end

-- Combinators

--- One future for the list of results, in the order of the arguments. asyncio.gather, 3.11; the last argument may be a
--- table of options: return_exceptions (errors stand as error objects in their places), cancel_on_error (the siblings
--- are cancelled and waited for before the error goes on).
---@param ... agather.Awaitable|{ return_exceptions?: boolean, cancel_on_error?: boolean }
---@return agather.Future
function agather.gather(...) end

--- The same over a list; with limit or progress, see agather.map.
---@param list agather.Awaitable[]
---@param options? { return_exceptions?: boolean, cancel_on_error?: boolean, limit?: integer, progress?: any }
---@return agather.Future
function agather.gather_list(list, options) end

-- Errors

--- Whether v is an error object (of the class or one derived from it).
---@return boolean
function agather.is_error(v, class) end
--- The error object for a value that was raised.
function agather.error_object(value, traceback) end
--- Lua's pcall, but a cancellation goes through.
function agather.pcall(f, ...) end
--- Lua's xpcall, but a cancellation goes through.
function agather.xpcall(f, handler, ...) end

-- Contexts

--- asyncio's contextvars (3.11): a task starts with a copy of its creator's values.
---@param name string
---@param default? any
---@return agather.ContextVar
function agather.ContextVar(name, default) end
---@return agather.Context copy of the current one
function agather.copy_context() end

---@class agather.ContextVar
local ContextVar = {}
function ContextVar:get(default) end
function ContextVar:set(value) end
function ContextVar:reset(token) end
function ContextVar:name() end

---@class agather.Context
local Context = {}
function Context:run(f, ...) end
function Context:copy() end
function Context:get(variable, default) end

-- Synchronization, asyncio's (3.11)

---@return agather.Lock
function agather.Lock() end
---@return agather.Event
function agather.Event() end
---@param lock? agather.Lock
---@return agather.Condition
function agather.Condition(lock) end
---@param value? integer 1
---@return agather.Semaphore
function agather.Semaphore(value) end
--- Raises when released more often than acquired.
---@param value? integer 1
---@return agather.Semaphore
function agather.BoundedSemaphore(value) end

---@class agather.Lock
local Lock = {}
--- `local held <close> = lock:acquire()` releases at the end of the scope. FIFO fair.
---@async
---@return agather.Lock
function Lock:acquire() end
function Lock:release() end
---@return boolean
function Lock:locked() end

---@class agather.Event
local Event = {}
---@async
---@return true
function Event:wait() end
function Event:set() end
function Event:clear() end
---@return boolean
function Event:is_set() end

---@class agather.Semaphore
local Semaphore = {}
---@async
---@return agather.Semaphore
function Semaphore:acquire() end
function Semaphore:release() end
---@return boolean
function Semaphore:locked() end

---@class agather.Condition
local Condition = {}
---@async
---@return agather.Condition
function Condition:acquire() end
function Condition:release() end
---@return boolean
function Condition:locked() end
---@async
---@return true
function Condition:wait() end
--- Waits until predicate() is true, asking again after each notification; gives what it returned.
---@async
---@param predicate fun(): any
function Condition:wait_for(predicate) end
---@param n? integer 1
function Condition:notify(n) end
function Condition:notify_all() end

-- Queues, asyncio's (3.11; shutdown 3.13). maxsize <= 0: no limit.

---@param maxsize? integer 0
---@return agather.Queue
function agather.Queue(maxsize) end
---@param maxsize? integer 0
---@return agather.Queue
function agather.LifoQueue(maxsize) end
---@param maxsize? integer 0
---@param less? fun(a: any, b: any): boolean whether a leaves before b; by default a < b. Ties leave as they came.
---@return agather.Queue
function agather.PriorityQueue(maxsize, less) end

---@class agather.Queue
local Queue = {}
---@async
function Queue:put(item) end
function Queue:put_nowait(item) end
---@async
function Queue:get() end
function Queue:get_nowait() end
--- for item in queue:items() do: until the queue was shut down and is empty.
---@return fun(queue: agather.Queue): any
---@return agather.Queue
function Queue:items() end
function Queue:task_done() end
---@async
function Queue:join() end
---@param immediate? boolean drop what is left
function Queue:shutdown(immediate) end
---@return integer
function Queue:qsize() end
---@return boolean
function Queue:empty() end
---@return boolean
function Queue:full() end
---@return integer
function Queue:maxsize() end

--- Calls join() once for each loop, before it first blocks with the module [name] in package.loaded: for libraries
--- that have an event loop of their own.
---@param name string
---@param join fun()
function agather.companion(name, join) end

--- Whether a file descriptor is a terminal.
---@param fd integer
---@return boolean
function agather.isatty(fd) end

--- Lua's coroutine table, but a task may wait inside.
agather.coroutine = {}
function agather.coroutine.create(f) end
---@async
function agather.coroutine.resume(co, ...) end
function agather.coroutine.wrap(f) end
function agather.coroutine.yield(...) end
---@async
function agather.coroutine.close(co) end
function agather.coroutine.running() end
function agather.coroutine.status(co) end
function agather.coroutine.isyieldable(co) end

return agather
