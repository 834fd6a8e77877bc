-- Streams: bytes choose what is sent, in which pieces, how it ends, and which calls read it, with cancellations, timeouts
-- and other tasks in between. Whatever the pieces, each read gives what spec/support/read_model.lua says; nothing that
-- was written is lost or comes twice, also around what was cancelled.
local agather = require "agather"
local choices = require "spec.support.bytes"
local links = require "spec.support.links"
local read_model = require "spec.support.read_model"

-- Seconds until it counts as hanging: a busy machine needs more than the fuzzer's limit of 10 allows.
local HANGS, MOST_BYTES = tonumber(os.getenv("AGATHER_FUZZ_HANGS")) or 8, 1 << 19

local runner
local reached -- tells the fuzzer of places in the model

local function is_error(value, class) return agather.is_error(value, agather[class]) end

-- ---- reading ----

local kinds = { "line", "some", "exactly", "until", "kept", "all" }

local function choose_read(bytes)
  local read = { kind = bytes:of(kinds) }
  if read.kind == "some" or read.kind == "exactly" then
    read.count = bytes:upto(bytes:one_in(8) and 0xffff or 40)
  elseif read.kind == "until" then
    read.separator = bytes:take(bytes:upto(3) + 1)
    if read.separator == "" then read.separator = "\n" end
  end
  read.by_lines = bytes:one_in(8) and read.kind ~= "exactly" and read.kind ~= "until"
  return read
end

local formats = { line = "l", kept = "*L", all = "a" }

local function call_read(stream, read)
  if read.kind == "exactly" then return stream:read_exactly(read.count) end
  if read.kind == "until" then return stream:read_until(read.separator) end
  local format = read.count or formats[read.kind]
  if read.by_lines then return stream:lines(format)() end
  if read.kind == "line" then return stream:read() end
  return stream:read(format)
end

-- Reads and checks what comes, with no wait in between: so results are checked in the order in which they were taken.
local function read_and_check(reader, read)
  local ok, value = agather.pcall(call_read, reader.stream, read)
  local kind = read_model.kind_of(ok, value, is_error)
  if kind == "reset" then
    if not is_error(value, "OSError") and not is_error(value, "TLSError") then error(value, 0) end
    if reader.closed then
      assert(value.code == "EBADF" or reader.incoming.ending ~= "silence", tostring(value))
      return
    end
  end
  local expected = read_model.expect(reader.incoming, read)
  reached(#kind * 64 + #expected.kind * 8 + #read.kind + 512 * #reader.incoming.ending)
  read_model.check(reader.incoming, read, kind, value)
end

local function turns(count)
  for _ = 1, count do agather.sleep(0) end
end

-- Waits for a task that was, perhaps, cancelled: raises what it raised otherwise.
local function settle(task)
  local ok, err = pcall(task.await, task)
  if not ok and not is_error(err, "CancelledError") and not is_error(err, "TimeoutError") then error(err, 0) end
end

-- How a task that waits is given up, after so many turns.
local giving_up = {
  function(count, f, ...)
    local task = agather.spawn(f, ...)
    turns(count)
    task:cancel()
    settle(task)
  end,
  function(count, f, ...)
    local task = agather.spawn(function(...)
      local scope <close> = agather.timeout(nil)
      agather.spawn(function()
        turns(count)
        pcall(scope.reschedule, scope, 0)
      end)
      f(...)
    end, ...)
    settle(task)
  end,
  function(count, f, ...)
    local task = agather.spawn(f, ...)
    settle(agather.spawn(agather.wait_for, task, count == 0 and 0 or 1e-6 * count))
    settle(task)
  end,
}

-- Whether nothing more will ever make the call return.
local function waits_for_ever(reader, read)
  return read_model.expect(reader.incoming, read).kind == "waits"
end

local reading = {}

function reading.plain(reader, read)
  if not waits_for_ever(reader, read) then return read_and_check(reader, read) end
  local task = agather.spawn(read_and_check, reader, read)
  agather.await(reader.all_written)
  turns(3)
  assert(not task:done(), "a read returned although what it waits for never comes")
  task:cancel()
  settle(task)
end

function reading.given_up(reader, read, bytes)
  local count, how = bytes:upto(6), bytes:of(giving_up)
  how(count, read_and_check, reader, read)
end

-- Another task reads while one waits: it is refused, or gets what the other one has not taken yet.
function reading.contested(reader, read, bytes)
  local task = agather.spawn(read_and_check, reader, read)
  turns(bytes:upto(3) + 1)
  local other = choose_read(bytes)
  if task:done() then
    settle(task)
    return reading.plain(reader, other)
  end
  local second = agather.spawn(function()
    local ok, err = agather.pcall(read_and_check, reader, other)
    if not ok and not is_error(err, "RuntimeError") then error(err, 0) end
    if not ok then assert(tostring(err):find("another task reads", 1, true), tostring(err)) end
  end)
  turns(1)
  task:cancel()
  settle(task)
  turns(1)
  second:cancel()
  settle(second)
end

function reading.pause(_, _, bytes) turns(bytes:upto(8)) end

function reading.limits(reader, _, bytes)
  local incoming = reader.incoming
  incoming.line, incoming.all = bytes:upto(64) + 1, bytes:upto(300) + 1
  reader.stream:set_limits { line = incoming.line, all = incoming.all }
end

function reading.no_limits(reader)
  local incoming = reader.incoming
  incoming.line, incoming.all = 65536, math.maxinteger
  reader.stream:set_limits { line = incoming.line, all = incoming.all }
end

function reading.collect() collectgarbage() end

local reading_steps = { "plain", "plain", "given_up", "plain", "given_up", "contested", "pause", "limits", "no_limits", "collect" }

-- Reads all that is left.
local function drain(reader)
  local incoming, read = reader.incoming, { kind = "some", count = 65536 }
  while read_model.expect(incoming, read).kind == "some" do read_and_check(reader, read) end
  reading.plain(reader, read)
end

local function run_reader(reader, bytes)
  for _ = 1, reader.steps do
    local step = bytes:of(reading_steps)
    local read = choose_read(bytes)
    reading[step](reader, read, bytes)
  end
  if not reader.leaves then drain(reader) end
end

-- ---- writing ----

local function write(writer, ...)
  local ok, err = agather.pcall(writer.stream.write, writer.stream, ...)
  if ok then
    assert(err == writer.stream, "write does not return the stream")
    if writer.check_room and table.concat { ... } ~= "" then writer.check_room() end
    return
  end
  if not is_error(err, "OSError") and not is_error(err, "TLSError") then error(err, 0) end
  if not (writer.may_fail or writer.closed) then error(err, 0) end
  writer.failed = true
end

-- A task that writes, which has begun to once this returns, also if it was cancelled then.
local function spawn_writer(writer, piece, cancel_first)
  local began = false
  local task = agather.spawn(function()
    began = true
    write(writer, piece)
  end)
  if cancel_first then task:cancel() end
  turns(1)
  if not began then
    settle(task)
    write(writer, piece)
  end
  return task
end

local writing = {}

function writing.plain(writer, piece) write(writer, piece) end

function writing.several(writer, piece, bytes)
  local parts = {}
  local at, count = 1, bytes:upto(20) + 1
  local size = math.max(1, #piece // count)
  for place = 1, count do
    parts[place] = piece:sub(at, place < count and at + size - 1 or -1)
    at = at + #parts[place]
  end
  write(writer, table.unpack(parts))
end

function writing.given_up(writer, piece, bytes)
  local count = bytes:upto(4)
  local task = spawn_writer(writer, piece, count == 0)
  turns(count)
  task:cancel()
  settle(task)
end

-- It goes on while others write; not where a task that waits for its turn has not given its bytes away yet.
function writing.beside(writer, piece)
  if not writer.takes_at_once then return write(writer, piece) end
  writer.tasks[#writer.tasks + 1] = spawn_writer(writer, piece)
end

function writing.each_byte(writer, piece)
  for at = 1, math.min(#piece, 40) do write(writer, piece:sub(at, at)) end
  if #piece > 40 then write(writer, piece:sub(41)) end
end

local writing_steps = { "plain", "each_byte", "given_up", "several", "beside" }

local between = {}
function between.nothing() end
function between.pause(_, bytes) turns(bytes:upto(6)) end
function between.flush(writer)
  local ok, err = agather.pcall(writer.stream.flush, writer.stream)
  if not ok and not writer.may_fail then error(err, 0) end
  if ok and writer.check_flushed then writer.check_flushed() end
end
function between.give_up_flush(writer, bytes) giving_up[1](bytes:upto(3), between.flush, writer) end
function between.marks(writer, bytes)
  local high = bytes:upto(2000)
  writer.stream:set_write_buffer_limits { high = high, low = bytes:upto(high) }
end

local between_steps = { "nothing", "pause", "flush", "give_up_flush", "marks" }

local function run_writer(writer, bytes)
  for _, piece in ipairs(writer.pieces) do
    if writer.failed then break end
    writing[bytes:of(writing_steps)](writer, piece, bytes)
    between[bytes:of(between_steps)](writer, bytes)
  end
  if writer.ending == "shutdown" then
    local ok, err = agather.pcall(writer.stream.shutdown, writer.stream)
    if not ok and not writer.may_fail then error(err, 0) end
  elseif writer.ending == "close" or writer.ending == "abort" then
    writer.closed = true
    writer.stream[writer.ending](writer.stream)
  end
  writer.all_written:set_result()
  for _, task in ipairs(writer.tasks) do settle(task) end
end

-- ---- a scenario ----

-- Pieces of a text, and the text.
local function choose_pieces(bytes)
  local pieces, size = {}, 0
  for place = 1, bytes:upto(12) do
    local piece = bytes:take(bytes:upto(24))
    if bytes:one_in(6) then piece = piece .. "\n" end
    if bytes:one_in(10) then piece = piece:rep(bytes:upto(4000)) end
    piece = piece:sub(1, MOST_BYTES - size)
    pieces[place], size = piece, size + #piece
  end
  return pieces, table.concat(pieces)
end

-- What comes of an ending of the writer's: what the reader sees.
local function seen_ending(link, ending)
  if ending == "shutdown" or ending == "close" then return "end" end
  if ending == "abort" then return link.aborted end
  return "silence"
end

-- One direction: a writer at one stream, a reader at another.
local function direction(link, from, to, bytes, ending)
  local pieces, text = choose_pieces(bytes)
  local all_written = agather.future()
  local reader = {
    stream = to, steps = bytes:upto(10), all_written = all_written,
    incoming = { text = text, at = 1, ending = seen_ending(link, ending), line = 65536, all = math.maxinteger },
  }
  local writer = {
    stream = from, pieces = pieces, ending = ending, all_written = all_written, tasks = {},
    takes_at_once = link.takes_at_once,
  }
  local channel = link.channel and link.channel(from)
  if channel then
    function writer.check_flushed() assert(channel.size == 0, "flushed, and something is left") end
    function writer.check_room() assert(channel.size <= channel.high, "write returned over the high-water mark") end
  end
  return reader, writer
end

-- A stream that was closed says so, whatever it is asked.
local function check_closed(stream)
  stream:close()
  stream:close()
  stream:abort()
  local calls = {
    { "read" }, { "read", 1 }, { "read_exactly", 1 }, { "read_until", "x" }, { "write", "x" }, { "flush" }, { "shutdown" },
    { "lines" }, { "peer_address" },
  }
  for _, call in ipairs(calls) do
    local ok, err = agather.pcall(stream[call[1]], stream, call[2])
    assert(not ok and is_error(err, "OSError") and err.code == "EBADF", call[1] .. " of a closed stream: " .. tostring(err))
  end
  assert(tostring(stream):find("closed", 1, true), tostring(stream))
end

-- Whoever reads when the stream is closed is told.
local function close_under_reader(reader)
  local task = agather.spawn(read_and_check, reader, { kind = "exactly", count = 1 << 30 })
  turns(1)
  reader.closed = true
  reader.stream:close()
  settle(task)
end

local endings = { "shutdown", "close", "abort", "nothing" }

local function scenario(bytes)
  local link = links[bytes:of(links.names)]()
  local duplex = bytes:one_in(4)
  local ending = duplex and "shutdown" or bytes:of(endings)
  if link.one_way then duplex = false end
  local one, other = link.one, link.other
  local reader, writer = direction(link, one, other, bytes, ending)
  local tasks = {}
  if duplex then
    local back_reader, back_writer = direction(link, other, one, bytes, "shutdown")
    tasks[1], tasks[2] = agather.spawn(run_reader, back_reader, bytes), agather.spawn(run_writer, back_writer, bytes)
  elseif bytes:one_in(5) and not link.one_way then
    reader.leaves, writer.may_fail = true, true
  end
  reached(#link.name * 32 + #ending * 4 + (duplex and 2 or 0) + (reader.leaves and 1 or 0) + 8192)
  tasks[#tasks + 1] = agather.spawn(run_writer, writer, bytes)
  tasks[#tasks + 1] = agather.spawn(function()
    run_reader(reader, bytes)
    if reader.leaves or ending == "nothing" then close_under_reader(reader) end
  end)
  agather.gather_list(tasks, { cancel_on_error = true }):await()
  if writer.closed then check_closed(one) end
  one:close()
  other:close()
  check_closed(other)
  if link.finish then link.finish() end
end

-- ---- around it ----

local function descriptors() return #agather.fs.scandir("/proc/self/fd") end

local inputs, most_descriptors = 0, nil

-- Nothing is left of it: no task, and now and then it is looked for descriptors.
local function check_left()
  local loop = agather.get_running_loop()
  local deadline = loop:time() + HANGS
  while #agather.all_tasks() > 1 do -- what is over leaves; a TLS stream that was closed still sends
    if loop:time() > deadline then
      error("tasks are left: " .. tostring(agather.all_tasks()[1]) .. "\n" .. tostring(agather.all_tasks()[2]))
    end
    agather.sleep(0)
  end
  inputs = inputs + 1
  if inputs % 100 ~= 10 then return end
  turns(2)
  collectgarbage()
  turns(2)
  local now = descriptors()
  most_descriptors = most_descriptors or now + 4
  assert(now <= most_descriptors, "descriptors are left: " .. now)
end

local function hangs()
  local lines = { "it hangs:" }
  for _, task in ipairs(agather.all_tasks()) do lines[#lines + 1] = task:traceback() end
  error(table.concat(lines, "\n"), 0)
end

local function main(bytes)
  local task = agather.spawn(scenario, bytes)
  local _, pending = agather.wait({ task }, { timeout = HANGS })
  if pending[1] then hangs() end
  task:await()
  check_left()
end

return function(text, tell)
  reached = tell or function() end
  runner = runner or agather.Runner()
  runner:run(main, choices.new(text))
end
