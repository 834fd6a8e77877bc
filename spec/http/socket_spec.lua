-- Sockets that curl waits for: what is wrong with one is for curl to find out.
local agather = require "agather"
local servers = require "spec.support.servers"
local support = require "spec.support"

local http = agather.http

local BODY = ("fine"):rep(10000) -- more than curl reads in one piece

-- Answers, and resets the connection before the client has heard of either.
local function answer_and_reset(_, stream)
  servers.respond(stream, "200 OK", nil, BODY)
  stream:flush()
  stream:abort()
end

describe("a connection that is reset", function()
  it("gives all of the answer that came before", function()
    servers.with(answer_and_reset, function(base)
      local client <close> = http.Client {}
      for _, method in ipairs { "GET", "POST" } do
        for _ = 1, 10 do
          assert.equal(BODY, client:request(method, base, { body = method == "POST" and "x" or nil }):text())
        end
      end
    end)
  end)

  it("is replaced where it had been idle, for GET and for POST", function()
    local count = 0
    servers.with(function(_, stream)
      count = count + 1
      if count % 2 == 0 then return stream:abort() end -- the second request on a connection
      servers.respond(stream, "200 OK", nil, "fine")
      return true
    end, function(base, state)
      local client <close> = http.Client {}
      for round = 1, 10 do
        local body = round % 2 == 0 and "x" or nil
        assert.equal("fine", client:request(body and "POST" or "GET", base, { body = body }):text())
      end
      assert.is_true(state.connections >= 2, state.connections)
    end)
  end)

  it("is an error that says so where nothing came before", function()
    servers.with(function(_, stream) stream:abort() end, function(base)
      local err = support.raises("reset", http.get, base)
      assert.is_true(agather.is_error(err, http.Error), tostring(err))
    end)
  end)
end)
