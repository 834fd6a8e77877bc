-- What a stream's read calls must return, written a second time and for reading: of all the bytes that come and of how
-- they end, whatever the pieces in which they come.
local read_model = {}

---@class spec.Incoming
---@field text string all that comes, also what has not come yet
---@field at integer where what has not been taken begins
---@field ending "end"|"cut"|"reset"|"broken"|"silence" how it ends: all comes, then the end; or an unknown part of it comes,
---  and then the end, or a reset; or all comes, then a reset; or all comes and then nothing
---@field line integer the limit of lines and separators
---@field all integer the limit of "a" and read_exactly

---@class spec.Read
---@field kind "line"|"kept"|"all"|"some"|"exactly"|"until"
---@field count? integer of some and exactly
---@field separator? string

local function at_end(incoming, otherwise)
  if incoming.ending == "silence" then return { kind = "waits" } end
  if incoming.ending == "reset" or incoming.ending == "broken" then return { kind = "reset" } end
  return otherwise
end

-- Up to the first separator, which [kept] says whether it is returned.
local function up_to(incoming, separator, kept, otherwise)
  local found, stop = incoming.text:find(separator, incoming.at, true)
  if found and found - incoming.at <= incoming.line then
    return { kind = "bytes", value = incoming.text:sub(incoming.at, kept and stop or found - 1), taken = stop + 1 - incoming.at }
  end
  if found or #incoming.text - incoming.at + 1 - #separator + 1 > incoming.line then return { kind = "overrun" } end
  return at_end(incoming, otherwise)
end

--- What a read must do: a kind, "bytes" (with value and how many are taken), "some" (most), "nothing", "overrun",
--- "incomplete", "reset", "waits" (for ever) or, where it hangs on the pieces, "bytes" with may_overrun.
---@param incoming spec.Incoming
---@param read spec.Read
function read_model.expect(incoming, read)
  local left = #incoming.text - incoming.at + 1
  local rest = left > 0 and { kind = "bytes", value = incoming.text:sub(incoming.at), taken = left, at_end = true }
    or { kind = "nothing" }
  if read.kind == "line" or read.kind == "kept" then
    return up_to(incoming, "\n", read.kind == "kept", rest)
  elseif read.kind == "until" then
    return up_to(incoming, read.separator, true, { kind = "incomplete" })
  elseif read.kind == "some" then
    if left == 0 then return at_end(incoming, { kind = "nothing" }) end
    return { kind = "some", most = math.min(read.count, left) }
  elseif read.kind == "exactly" then
    if left >= read.count then
      local value = incoming.text:sub(incoming.at, incoming.at + read.count - 1)
      return { kind = "bytes", value = value, taken = read.count, may_overrun = read.count > incoming.all }
    end
    if read.count > incoming.all then return { kind = "overrun" } end
    return at_end(incoming, { kind = "incomplete" })
  end
  if left > incoming.all then return { kind = "overrun" } end
  return at_end(incoming, { kind = "bytes", value = incoming.text:sub(incoming.at), taken = left, at_end = true })
end

--- The kind of what a call did, from what pcall returned.
---@param is_error fun(err: any, class: string): boolean
function read_model.kind_of(ok, value, is_error)
  if ok then return value == nil and "nothing" or "bytes" end
  if is_error(value, "LimitOverrunError") then return "overrun" end
  if is_error(value, "IncompleteReadError") then return "incomplete" end
  return "reset"
end

local function fail(expected, kind, value)
  local text = tostring(type(value) == "table" and value.partial or value)
  error(("a read should give %s %q, but gave %s %q (%d bytes)"):format(expected.kind,
    (expected.value or expected.most or ""):sub(1, 80), kind, text:sub(1, 80), #text), 0)
end

-- Whether that is what it must do.
local function fits(incoming, read, expected, kind, value)
  if expected.may_overrun and kind == "overrun" then return true end
  if expected.kind == "some" then
    return kind == "bytes" and #value <= expected.most and (#value > 0 or read.count == 0)
      and incoming.text:sub(incoming.at, incoming.at + #value - 1) == value
  end
  if kind ~= expected.kind then return false end
  if kind == "bytes" then return value == expected.value end
  if kind == "incomplete" then
    return value.partial == incoming.text:sub(incoming.at) and (read.kind ~= "exactly" or value.expected == read.count)
  end
  return true
end

-- The last bytes before an end that came early, if that is what a read gave.
local function last_bytes(read, kind, value)
  if kind == "nothing" then return "" end
  if kind == "incomplete" then return value.partial end
  if kind == "bytes" and (read.kind == "line" or read.kind == "kept" or read.kind == "all") then return value end
end

--- Checks what a read did against what it must do, and takes it. Raises where it is wrong.
---@param incoming spec.Incoming
---@param read spec.Read
---@param kind string as of kind_of
---@param value any
function read_model.check(incoming, read, kind, value)
  local expected = read_model.expect(incoming, read)
  if incoming.ending == "reset" and kind == "reset" then
    if read.kind == "some" and read.count > 0 then -- it takes what there is: so there was nothing
      incoming.text, incoming.ending = incoming.text:sub(1, incoming.at - 1), "broken"
    end
  elseif fits(incoming, read, expected, kind, value) then
    local taken = kind == "bytes" and (expected.taken or #value) or kind == "incomplete" and #value.partial or 0
    incoming.at = incoming.at + taken
  else
    local last = incoming.ending == "cut" and last_bytes(read, kind, value)
    if not last or incoming.text:sub(incoming.at, incoming.at + #last - 1) ~= last then fail(expected, kind, value) end
    incoming.at = incoming.at + #last
    incoming.text, incoming.ending = incoming.text:sub(1, incoming.at - 1), "end"
  end
end

return read_model
