-- agather.http against servers that are broken or mean: bytes choose requests, what they are answered with and in which
-- pieces, redirects, cookies, limits, and where the client gives up. A good answer gives the right response, a cut one an
-- error, all others a response or an error of agather.http; connections are used again in between. Afterwards a request
-- to another server works, and nothing is left.
local agather = require "agather"
local answers = require "spec.support.http_answers"
local choices = require "spec.support.bytes"
local curl = require "agather.curl"

local http = agather.http

-- Seconds until it counts as hanging: a busy machine needs more than the fuzzer's limit of 10 allows.
local HANGS, MOST_DESCRIPTORS = tonumber(os.getenv("AGATHER_FUZZ_HANGS")) or 8, 24

local runner, reached
local world -- what is kept over inputs: a client, two listeners

-- ---- the servers ----

local function turns(count)
  for _ = 1, count do agather.sleep(0) end
end

local function read_chunks(stream)
  local parts = {}
  while true do
    local size = tonumber(stream:read_until("\r\n"):match("^%x+"), 16)
    parts[#parts + 1] = stream:read_exactly(size)
    assert(stream:read_until("\r\n") == "\r\n", "a chunk without its end")
    if size == 0 then return table.concat(parts) end
  end
end

local function read_body(stream, headers)
  if headers["transfer-encoding"] == "chunked" then return read_chunks(stream) end
  local length = math.tointeger(tonumber(headers["content-length"]))
  return length and stream:read_exactly(length) or ""
end

-- A request: method, target, headers (lowercase name -> value).
local function read_head(stream)
  local ok, head = agather.pcall(stream.read_until, stream, "\r\n\r\n")
  if not ok then return nil end
  local request = { headers = {} }
  request.method, request.target = head:match("^(%S+) (%S+) HTTP/1.1\r\n")
  assert(request.method, "no good request: " .. head)
  for name, value in head:gmatch("\r\n([^:\r\n]+): *([^\r\n]*)") do request.headers[name:lower()] = value end
  return request
end

local function write_answer(stream, answer)
  for place, piece in ipairs(answer.pieces) do
    if place > 1 then turns(place < 8 and 2 or 1) end
    stream:write(piece)
  end
  if answer.ending == "stall" then agather.future():await() end
  if answer.ending == "keep" then return true end
  if answer.ending == "abort" then stream:flush() end
  if answer.ending == "shutdown" then
    stream:shutdown()
    stream:read("a")
  else
    stream[answer.ending](stream)
  end
end

-- Answers what /input.exchange/hop asks for; [plan] checks what was asked.
local function serve(stream, plan)
  local _ <close> = stream
  while true do
    local request = read_head(stream)
    if not request then return end
    local answer, hasty = plan:answer_to(request)
    if not hasty then plan:check_body(request, read_body(stream, request.headers)) end
    local ok, stays = agather.pcall(write_answer, stream, answer)
    if not ok and not agather.is_error(stays, agather.OSError) then error(stays, 0) end
    if not stays or not ok or hasty then return end
  end
end

local function accept_all(listener, plan)
  while true do
    local stream = listener:accept()
    plan.tasks[#plan.tasks + 1] = agather.spawn(function()
      local ok, err = agather.pcall(serve, stream, plan)
      if not ok and not agather.is_error(err, agather.OSError) and not agather.is_error(err, agather.IncompleteReadError) then
        plan.failure = plan.failure or err
      end
    end)
  end
end

-- ---- the plan: what is asked and what must come of it ----

local Plan = {}
Plan.__index = Plan

local methods = { "GET", "HEAD", "POST", "GET", "PUT", "DELETE" }
local locations = {
  "/%s/%d", "%d", "http://127.0.0.1:%d/%s/%d", "http://127.0.0.2:%d/%s/%d#there", "//127.0.0.1:%d/%s/%d", "?again",
  "file:///etc/passwd", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "\\\\x",
}

-- How the exchange is named in targets. What was given up in the input before may be read only now.
local function path_of(number) return ("%d.%d"):format(world.inputs % 10, number) end

-- A place to be sent to; whether it is a good one, and whether it is another host.
local function choose_location(bytes, number, hop)
  local which = bytes:upto(#locations - 1) + 1
  local format = locations[which]
  if which == 1 then return format:format(path_of(number), hop), true end
  if which == 2 then return format:format(hop), true end
  if which <= 5 then return format:format(world.port, path_of(number), hop), true, which == 4 end
  return format, false
end

-- The body of a request; whether it is read from a function, piece by piece.
local function choose_body(bytes, options)
  local body = bytes:take(bytes:upto(30))
  if bytes:one_in(12) then body = body:rep(bytes:upto(20000)) end
  if not bytes:one_in(3) then
    options.body = body
    return body, false
  end
  if bytes:one_in(2) then options.headers["Content-Length"] = #body end
  local at, size, pause = 1, math.max(1, #body // (bytes:upto(4) + 1)), bytes:upto(3)
  function options.body()
    turns(pause)
    local piece = body:sub(at, at + size - 1)
    at = at + #piece
    return piece ~= "" and piece or nil
  end
  return body, true
end

local function after_redirect(status, method)
  if status == 303 and method ~= "HEAD" then return "GET" end
  if (status == 301 or status == 302) and method == "POST" then return "GET" end
  return method
end

-- An exchange: method, options, hops (each with answer, method, and whether the secret must not get there), use.
local function choose_exchange(bytes, number)
  local method = bytes:of(methods)
  local options = { timeout = 20, headers = { ["X-Number"] = number, Authorization = "secret" } }
  local body, upload = "", false
  if method == "POST" or method == "PUT" then body, upload = choose_body(bytes, options) end
  if bytes:one_in(5) then options.max_body = bytes:upto(100) end
  local most = 10
  if bytes:one_in(6) then
    most = bytes:upto(2)
    options.follow_redirects = most > 0 and most or false
  end
  local exchange = {
    number = number, method = method, options = options, hops = {}, most = most, use = bytes:upto(15),
    body = body, hasty = upload and bytes:one_in(3), unknown = false,
  }
  local elsewhere = false
  while bytes:one_in(5) and #exchange.hops < 4 do
    local status = bytes:of { 302, 301, 303, 307, 308 }
    local location, is_good, other = choose_location(bytes, number, #exchange.hops + 1)
    local later = after_redirect(status, method)
    is_good = is_good and not (upload and later == method) -- that cannot be sent again
    exchange.hops[#exchange.hops + 1] = {
      method = method, elsewhere = elsewhere, answer = answers.redirect(method, status, location, bytes),
      leads = is_good,
    }
    if not is_good then break end
    elsewhere = elsewhere or other
    method, upload = later, upload and later == method
  end
  local last = exchange.hops[#exchange.hops]
  if not last or last.leads then
    exchange.hops[#exchange.hops + 1] = { method = method, elsewhere = elsewhere, answer = answers.choose(method, bytes) }
  end
  exchange.unknown = exchange.hasty
  for _, hop in ipairs(exchange.hops) do
    local answer = hop.answer
    if not answer.known then exchange.unknown = true end
    local stays = answer.ending == "stall" or answer.ending == "keep"
    if stays and not answer.known then options.timeout = 0.01 end
    if answer.extra or not answer.known then exchange.spoils = true end
  end
  return exchange
end

-- A connection on which bytes are left, or nobody answers, may be used by those that come next.
local function spoil(plan, at_once)
  local spoiled = false
  for _ = 1, at_once and 2 or 1 do
    for _, exchange in ipairs(plan) do
      if spoiled then exchange.unknown, exchange.options.timeout = true, 0.01 end
      spoiled = spoiled or exchange.spoils
    end
  end
end

-- What hangs on all of them: cookies are known where one comes after the other and nothing is broken; a stream that is
-- forgotten keeps its place until it is collected.
function Plan:settle(at_once, limits)
  local jar = not at_once and self.keeps_cookies and {} or nil
  for _, exchange in ipairs(self) do
    if exchange.unknown then jar = nil end
    if limits and exchange.use == 9 then exchange.use = 10 end
  end
  self.jar = jar
end

-- For whoever looks at a finding: AGATHER_FUZZ_SHOW=1.
function Plan:show()
  for _, exchange in ipairs(self) do
    print(("%d: %s, use %s, follows %s, max_body %s, timeout %s"):format(exchange.number, exchange.method, exchange.use,
      exchange.options.follow_redirects, exchange.options.max_body, exchange.options.timeout))
    for _, hop in ipairs(exchange.hops) do
      print("", hop.method, hop.answer.known, hop.answer.ending, ("%q"):format(table.concat(hop.answer.pieces, "|")))
    end
  end
end

-- How a response is taken, by the number of the use; with any other number the exchange is given up.
local in_order = {
  [0] = "whole", "whole", "text", "chunks", "whole", "lines", "first_chunk", "chunks", "whole", "forgotten", "text", "whole",
}

-- The client will have this cookie in place of another with its name; unless the answer is cut, or given up before it.
function Plan:keep_cookie(answer, exchange)
  if answer.known ~= "response" or not in_order[exchange.use] then
    self.jar = nil
    return
  end
  local name = answer.cookie:match("^[^=]+=")
  for place = #self.jar, 1, -1 do
    if self.jar[place]:sub(1, #name) == name then table.remove(self.jar, place) end
  end
  self.jar[#self.jar + 1] = answer.cookie
end

-- The exchange and the hop that a request is of; nil where a broken answer has led there.
function Plan:step_of(request)
  local input, number, hop = request.target:match("^/(%d)%.(%d+)/(%d+)$")
  local exchange = tonumber(input) == self.input and self[tonumber(number)]
  if not exchange then return nil end
  return exchange, exchange.hops[tonumber(hop) + 1]
end

function Plan:answer_to(request)
  local exchange, step = self:step_of(request)
  if not step then return { pieces = { "" }, ending = "close" } end
  if not exchange.unknown then
    assert(request.method == step.method, "it was asked with another method: " .. request.method)
    assert(request.headers.host == (step.elsewhere and request.headers.host or "127.0.0.1:" .. world.port), "another host")
    assert((request.headers.authorization == "secret") == not step.elsewhere, "what is secret went elsewhere, or not at all")
    if self.keeps_cookies == false then assert(not request.headers.cookie, "a cookie that was not to be kept") end
    if self.jar and not step.elsewhere and not exchange.given_up then -- else others may have been answered before it
      for _, cookie in ipairs(self.jar) do
        assert((request.headers.cookie or ""):find(cookie, 1, true), "it was asked without a cookie")
      end
      if step.answer.cookie then self:keep_cookie(step.answer, exchange) end
    end
  end
  return step.answer, exchange.hasty
end

function Plan:check_body(request, body)
  local exchange, step = self:step_of(request)
  if not step or exchange.unknown then return end
  local expected = (step.method == "POST" or step.method == "PUT") and exchange.body or ""
  assert(body == expected, "it was asked with another body")
end

-- ---- the client ----

-- Ways to take a response; each returns it and its body, or nil where that was not read to its end.
local uses = {}

function uses.whole(client, exchange, target)
  local response = client:request(exchange.method, target, exchange.options)
  return response, response:text()
end

function uses.text(client, exchange, target)
  local response <close> = client:stream(exchange.method, target, exchange.options)
  return response, response:text()
end

function uses.chunks(client, exchange, target)
  local response <close> = client:stream(exchange.method, target, exchange.options)
  local parts = {}
  for chunk in response:chunks(exchange.use == 3 and 7 or nil) do
    assert(#chunk > 0, "an empty chunk")
    parts[#parts + 1] = chunk
  end
  return response, table.concat(parts)
end

function uses.lines(client, exchange, target)
  local response <close> = client:stream(exchange.method, target, exchange.options)
  for line in response:lines() do assert(not line:find("\n", 1, true), "a line with its end") end
  return response, nil
end

function uses.first_chunk(client, exchange, target)
  local response <close> = client:stream(exchange.method, target, exchange.options)
  response:chunks()()
  response:close()
  response:close()
  return response, nil
end

function uses.forgotten(client, exchange, target)
  local response = client:stream(exchange.method, target, exchange.options)
  exchange.forgotten = true
  return response, nil
end

local function check_error(err)
  local is_ours = agather.is_error(err, http.Error) or agather.is_error(err, http.TimeoutError)
  assert(is_ours, "no error of agather.http: " .. tostring(err))
  assert(type(err.method) == "string" and type(err.url) == "string" and err.cause, "an error that does not say of what")
end

local function check_headers(answer, response)
  for name, values in pairs(answer.headers) do
    local got = response.headers:get_all(name)
    assert(#got == #values, "another number of headers " .. name)
    for place, value in ipairs(values) do assert(got[place] == tostring(value), "another header " .. name) end
  end
end

-- What must be right of any response.
local function check_response(response)
  assert(math.type(response.status) == "integer" and response.status >= 0 and response.status <= 999)
  assert(type(response.reason) == "string" and response.http_version:find("^[%d.]+$"))
  for name, value in response.headers:items() do assert(type(name) == "string" and type(value) == "string") end
  assert(tostring(response):find("Response", 1, true))
  pcall(response.raise_for_status, response)
end

-- What must come of an exchange in which all is known.
local function check_known(exchange, ok, response, body)
  local answer = exchange.hops[#exchange.hops].answer
  local redirects = #exchange.hops - 1
  local limit = exchange.options.max_body
  if exchange.most == 0 then
    answer, redirects = exchange.hops[1].answer, 0
  elseif redirects + (exchange.hops[#exchange.hops].leads == false and 1 or 0) > exchange.most then
    assert(not ok, "it followed too many redirects")
    if not limit then assert(agather.is_error(response, http.TooManyRedirects), tostring(response)) end
    return
  end
  for place = 1, redirects + 1 do
    local passed = exchange.hops[place].answer
    local is_wanted = exchange.whole or place == redirects + 1 and (exchange.most == 0 or exchange.hops[place].leads ~= false)
    if limit and passed.known == "response" and #passed.body > limit and is_wanted then
      if not ok then assert(agather.is_error(response, http.BodyTooLarge), tostring(response)) end
      assert(not ok or not body, "a body over the limit came through")
      return
    end
  end
  if exchange.hops[#exchange.hops].leads == false and exchange.most > 0 then
    assert(not ok and agather.is_error(response, http.ProtocolError), "a bad redirect was followed")
  elseif answer.known == "error" then
    if not ok then return end
    assert(body == nil or exchange.forgotten, "a response that was cut came through")
  elseif answer.known == "response" then
    if not ok then error(response, 0) end
    assert(response.status == answer.status and response.reason == answer.reason, "another status")
    assert(#response.history == redirects, "another number of redirects")
    check_headers(answer, response)
    if body then assert(body == answer.body, "another body") end
  end
end

local function run_exchange(plan, client, exchange)
  local target = ("http://127.0.0.1:%d/%s/0"):format(world.port, path_of(exchange.number))
  local use = in_order[exchange.use]
  exchange.whole = use == "whole" or not use
  if not use then -- it is given up
    local task = agather.spawn(uses[exchange.use % 2 == 0 and "whole" or "text"], client, exchange, target)
    turns((exchange.use - 11) * 5)
    task:cancel()
    exchange.given_up = true
    local ok, err = pcall(task.await, task)
    if not ok and not agather.is_error(err, agather.CancelledError) then check_error(err) end
    return
  end
  local ok, response, body = agather.pcall(uses[use], client, exchange, target)
  if plan.failure then error(plan.failure, 0) end
  if ok then check_response(response) else check_error(response) end
  reached((ok and response.status or #tostring(response.cause) + 1000) * 4 + (exchange.unknown and 1 or 0))
  if not exchange.unknown then check_known(exchange, ok, response, body) end
end

-- ---- around it ----

local function make_world()
  local made = { listener = agather.net.listen("0.0.0.0", 0), honest = agather.net.listen("127.0.0.1", 0), inputs = 0 }
  made.port = select(2, made.listener:local_address())
  made.honest_port = select(2, made.honest:local_address())
  made.client = http.Client { timeout = 20 }
  return made
end

local honest_plan = {
  tasks = {},
  check_body = function() end,
  answer_to = function(_, request)
    return {
      pieces = { ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#request.target, request.target) }, ending = "keep",
    }
  end,
}

local function stop(tasks)
  for _, task in ipairs(tasks) do task:cancel() end
  for _, task in ipairs(tasks) do
    local ok, err = pcall(task.await, task)
    if not ok and not agather.is_error(err, agather.CancelledError) then error(err, 0) end
  end
end

local function scenario(bytes)
  local plan = setmetatable({ tasks = {}, input = world.inputs % 10 }, Plan)
  local acceptors = { agather.spawn(accept_all, world.listener, plan), agather.spawn(accept_all, world.honest, honest_plan) }
  plan.keeps_cookies = not bytes:one_in(3)
  local limits
  if bytes:one_in(4) then limits = { max_connections = bytes:upto(2) + 1, max_per_host = bytes:one_in(2) and 1 or nil } end
  local client <close> = http.Client { proxy = false, cookies = plan.keeps_cookies, limits = limits }
  for number = 1, bytes:upto(3) + 1 do plan[number] = choose_exchange(bytes, number) end
  local at_once = bytes:one_in(3)
  spoil(plan, at_once)
  plan:settle(at_once, limits)
  if os.getenv("AGATHER_FUZZ_SHOW") then plan:show() end
  if at_once then
    local tasks = {}
    for number, exchange in ipairs(plan) do tasks[number] = agather.spawn(run_exchange, plan, client, exchange) end
    agather.gather_list(tasks, { cancel_on_error = true }):await()
  else
    for _, exchange in ipairs(plan) do run_exchange(plan, client, exchange) end
  end
  for _, cookie in ipairs(client:cookies()) do assert(type(cookie) == "table") end
  world.inputs = world.inputs + 1
  local target = "/" .. world.inputs
  local response = world.client:get(("http://127.0.0.1:%d%s"):format(world.honest_port, target))
  assert(response:text() == target, "the honest server was not understood")
  local forgotten, spoiled = false, false
  for _, exchange in ipairs(plan) do
    forgotten, spoiled = forgotten or exchange.forgotten, spoiled or exchange.spoils
  end
  if forgotten then
    collectgarbage()
    turns(2)
  end
  if spoiled then curl.trim() end -- curl 7.88 uses a connection again although bytes are left on it: not for the next input
  stop(acceptors)
  stop(plan.tasks)
  stop(honest_plan.tasks)
  honest_plan.tasks = {}
  if plan.failure then error(plan.failure, 0) end
end

local function check_left()
  turns(2)
  local left = agather.all_tasks()
  assert(#left == 1, "tasks are left: " .. #left .. " " .. tostring(left[1]) .. tostring(left[2]))
  if world.inputs % 50 ~= 0 then return end
  curl.trim()
  turns(20)
  local count = #agather.fs.scandir("/proc/self/fd")
  world.descriptors = world.descriptors or count + MOST_DESCRIPTORS
  assert(count <= world.descriptors, "descriptors are left: " .. count)
end

local function hangs()
  local lines = { "it hangs:" }
  for _, task in ipairs(agather.all_tasks()) do lines[#lines + 1] = task:traceback() end
  error(table.concat(lines, "\n"), 0)
end

local function main(bytes)
  world = world or make_world()
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
