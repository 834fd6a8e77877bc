local agather = require "agather"
local support = require "spec.support"
local uv = require "agather.uv"

local function filled(bytes, finished)
  local buffer = uv.buffer()
  buffer:feed(bytes)
  if finished then buffer:finish() end
  return buffer
end

describe("a buffer", function()
  it("gives lines without and with their newline", function()
    local buffer = filled("one\ntwo\n\nthree")
    assert.equal("one", buffer:take("l"))
    assert.equal("two\n", buffer:take("L"))
    assert.equal("", buffer:take())
    assert.is_false((buffer:take("l")))
    buffer:finish()
    assert.equal("three", buffer:take("l"))
    assert.is_nil(buffer:take("l"))
  end)

  it("takes formats with the asterisk of Lua 5.2", function()
    local buffer = filled("one\ntwo", true)
    assert.equal("one", buffer:take("*l"))
    assert.equal("two", buffer:take("*a"))
  end)

  it("keeps a carriage return and zero bytes", function()
    local buffer = filled("one\r\n\0\0\n")
    assert.equal("one\r", buffer:take("l"))
    assert.equal("\0\0", buffer:take("l"))
  end)

  it("gives all at the end only, which may be nothing", function()
    local buffer = filled("some")
    assert.is_false((buffer:take("a")))
    buffer:feed("thing")
    buffer:finish()
    assert.equal("something", buffer:take("a"))
    assert.equal("", buffer:take("a"))
  end)

  it("gives some bytes at once, and nil at the end", function()
    local buffer = filled("abcdef")
    assert.equal("ab", buffer:take(2))
    assert.equal("", buffer:take(0))
    assert.equal("cdef", buffer:take(100))
    assert.is_false((buffer:take(1)))
    buffer:finish()
    assert.is_nil(buffer:take(1))
    assert.is_nil(buffer:take(0))
  end)

  it("gives an exact number of bytes", function()
    local buffer = filled("abc")
    assert.equal("", buffer:take("exactly", 0))
    local value, wanted = buffer:take("exactly", 5)
    assert.is_false(value)
    assert.equal(5, wanted)
    buffer:feed("def")
    assert.equal("abcde", buffer:take("exactly", 5))
    assert.equal(1, #buffer)
  end)

  it("gives what comes up to and with a separator", function()
    local buffer = filled("a--b-")
    assert.equal("a--", buffer:take("until", "--"))
    assert.is_false((buffer:take("until", "--")))
    buffer:feed("-c")
    assert.equal("b--", buffer:take("until", "--"))
    assert.is_false((buffer:take("until", "\0")))
    buffer:feed("\0")
    assert.equal("c\0", buffer:take("until", "\0"))
    assert.equal("a--", filled("a--"):take("until", "--"))
  end)

  it("finds a separator that begins with what looks like it", function()
    assert.equal("aab", filled("aab"):take("until", "ab"))
    assert.equal("--\r\n\r\r\n\r\n", filled("--\r\n\r\r\n\r\nrest"):take("until", "\r\n\r\n"))
  end)

  it("says what came when the end comes first, and has it no more", function()
    local buffer = filled("abc", true)
    local err = support.raises("read_exactly: the stream ended after 3 of 10 bytes", buffer.take, buffer, "exactly", 10)
    assert.is_true(agather.is_error(err, agather.IncompleteReadError))
    assert.equal("abc", err.partial)
    assert.equal(10, err.expected)
    assert.equal(0, #buffer)
    err = support.raises("read_until: the stream ended after 2 bytes", function()
      filled("xy", true):take("until", "--")
    end)
    assert.equal("xy", err.partial)
    assert.is_nil(err.expected)
  end)

  it("raises the error that ended it for what is not there, and keeps what is", function()
    local buffer = filled("one\ntw")
    buffer:finish("broken")
    assert.equal("one", buffer:take("l"))
    assert.equal("broken", support.raises("broken", buffer.take, buffer, "l"))
    support.raises("broken", buffer.take, buffer, "a")
    support.raises("broken", buffer.take, buffer, "exactly", 3)
    support.raises("broken", buffer.take, buffer, "until", "x")
    assert.equal("tw", buffer:take(10))
    support.raises("broken", buffer.take, buffer, 10)
  end)

  it("is ended by the first finish and fed no more after it", function()
    local buffer = uv.buffer()
    assert.is_false(buffer:finished())
    buffer:finish()
    buffer:finish("late")
    assert.is_true(buffer:finished())
    assert.is_nil(buffer:take("l"))
    support.raises("the buffer is finished", buffer.feed, buffer, "x")
    assert.equal(0, buffer:feed(""))
  end)

  it("does not gather a line over the limit, and loses nothing of it", function()
    local buffer = uv.buffer()
    buffer:set_limits { line = 4 }
    buffer:feed("12345")
    local err = support.raises("no separator in more than 4 bytes", buffer.take, buffer, "l")
    assert.is_true(agather.is_error(err, agather.LimitOverrunError))
    assert.equal(5, err.consumed)
    buffer:feed("678\n")
    assert.equal(8, support.raises("the separator comes after more than 4 bytes", buffer.take, buffer, "L").consumed)
    assert.equal("12345678\n", buffer:take(100))
    buffer:feed("1234\n")
    assert.equal("1234", buffer:take("l"))
  end)

  it("lets no line be longer than 64 KiB unless told", function()
    local buffer = filled(("x"):rep(65536))
    assert.is_false((buffer:take("l")))
    buffer:feed("x")
    support.raises("65536 bytes", buffer.take, buffer, "l")
    support.raises("65536 bytes", buffer.take, buffer, "until", "y")
    buffer:set_limits { line = 70000 }
    buffer:feed("\n")
    assert.equal(65537, #buffer:take("l"))
  end)

  it("gathers no more than the limit for all and exactly", function()
    local buffer = filled("12345")
    buffer:set_limits { all = 4 }
    support.raises("more than 4 bytes", buffer.take, buffer, "a")
    support.raises("asked for more than 4 bytes", buffer.take, buffer, "exactly", 6)
    assert.equal("12345", buffer:take(10))
    buffer:feed("1234")
    assert.is_false((buffer:take("a")))
    buffer:finish()
    assert.equal("1234", buffer:take("a"))
  end)

  it("refuses bad arguments with names", function()
    local buffer = uv.buffer()
    support.raises("invalid format", buffer.take, buffer, "x")
    support.raises("must not be negative", buffer.take, buffer, -1)
    support.raises("separator must not be empty", buffer.take, buffer, "until", "")
    support.raises("number expected", buffer.take, buffer, "exactly", "x")
    support.raises("string expected", buffer.feed, buffer, {})
    support.raises("unknown option 'lines'", buffer.set_limits, buffer, { lines = 1 })
    support.raises("option 'line' must be a positive integer, got 0", buffer.set_limits, buffer, { line = 0 })
    support.raises("table expected", buffer.set_limits, buffer, 5)
    support.raises("agather.Buffer expected", buffer.take, {})
  end)

  it("forgets what it holds when it is cleared", function()
    local buffer = filled("abc")
    buffer:clear()
    assert.equal(0, #buffer)
    buffer:feed("d")
    assert.equal("d", buffer:take(5))
  end)

  -- The same answers as a search in the whole, wherever the bytes are split.
  it("gives the same however its bytes are split", function()
    local random = 12345
    local function pick(n)
      random = (random * 1103515245 + 12345) % 2147483648
      return (random >> 8) % n + 1
    end
    local alphabet = { "a", "b", "\n", "-", "--", "ab\n" }
    for _ = 1, 300 do
      local pieces = {}
      for i = 1, pick(30) do pieces[i] = alphabet[pick(#alphabet)] end
      local whole = table.concat(pieces)
      local buffer, fed, position = uv.buffer(), 0, 1
      local function expected(kind, argument) -- what is taken next, or nil where the end is in the way
        local rest = whole:sub(position)
        if kind == "l" or kind == "L" then
          local line = rest:match("^[^\n]*\n") or rest ~= "" and rest or nil
          position = position + #(line or "")
          return line and kind == "l" and line:gsub("\n$", "") or line
        elseif kind == "exactly" then
          if #rest < argument then return nil end
          position = position + argument
          return rest:sub(1, argument)
        end
        local _, last = rest:find(argument, 1, true)
        if not last then return nil end
        position = position + last
        return rest:sub(1, last)
      end
      local kinds = { { "l" }, { "L" }, { "exactly", 3 }, { "until", "--" }, { "until", "\n" } }
      repeat
        local kind = kinds[pick(#kinds)]
        local ok, value, wanted, searched = pcall(buffer.take, buffer, kind[1], kind[2])
        while ok and value == false do
          if fed == #whole then
            buffer:finish()
          else
            local n = pick(4)
            local held = buffer:feed(whole:sub(fed + 1, fed + n))
            fed = math.min(#whole, fed + n)
            if held < wanted and fed < #whole then goto again end
          end
          ok, value, wanted, searched = pcall(buffer.take, buffer, kind[1], kind[2], searched)
          ::again::
        end
        local right = expected(kind[1], kind[2])
        if ok then
          assert.equal(right, value)
        else
          assert.is_nil(right)
          assert.equal(whole:sub(position), value.partial)
          break
        end
      until value == nil
    end
  end)

  it("keeps the little that is left of much", function()
    local buffer = filled(("x"):rep(50000) .. "\nthe rest")
    assert.equal(50000, #buffer:take("l"))
    assert.equal(8, #buffer)
    buffer:feed(" of it\n")
    assert.equal("the rest of it", buffer:take("l"))
    for i = 1, 3000 do buffer:feed(i .. "\n") end
    for i = 1, 3000 do assert.equal(tostring(i), buffer:take("l")) end
    assert.equal(0, #buffer)
  end)

  it("moves what it holds when there is room before it", function()
    local buffer, sum = uv.buffer(), 0
    for i = 1, 2000 do
      buffer:feed(("%d "):format(i):rep(20))
      sum = sum + #buffer:take("exactly", #(tostring(i)) * 20)
    end
    assert.equal(137860, sum)
    assert.equal(40000, #buffer)
  end)
end)
