-- Answers of an HTTP server that bytes choose, good ones and broken ones, and what a client must make of them.
local answers = {}

---@class spec.Answer
---@field pieces string[] what is written, with turns of the loop in between
---@field ending "keep"|"close"|"abort"|"shutdown"|"stall" what the server does then
---@field known "response"|"error"|"either"|nil what must come of it: the response below, an error, or one of both; nil: it
---  is broken
---@field status? integer
---@field reason? string
---@field headers? table<string, string[]>
---@field body? string
---@field cookie? string "name=value" that it sets for all of the host

-- ---- gzip, of blocks that are stored ----

local crc_table = {}
for byte = 0, 255 do
  local crc = byte
  for _ = 1, 8 do crc = crc & 1 ~= 0 and 0xEDB88320 ~ crc >> 1 or crc >> 1 end
  crc_table[byte] = crc
end

local function crc32(text)
  local crc = 0xFFFFFFFF
  for at = 1, #text do crc = crc_table[(crc ~ text:byte(at)) & 255] ~ crc >> 8 end
  return crc ~ 0xFFFFFFFF
end

local function gzip(text)
  local parts = { "\x1f\x8b\8\0\0\0\0\0\0\3" }
  for at = 1, math.max(#text, 1), 1000 do
    local block = text:sub(at, at + 999)
    parts[#parts + 1] = string.pack("<B I2 I2", at + 1000 > #text and 1 or 0, #block, ~#block & 0xFFFF) .. block
  end
  parts[#parts + 1] = string.pack("<I4 I4", crc32(text), #text)
  return table.concat(parts)
end

-- ---- parts of a good one ----

local statuses = { 200, 200, 404, 204, 304, 206, 500, 201, 401, 299, 999 }
local has_no_body = { [204] = true, [304] = true }
local names = { "X-A", "x-b", "ETag", "X-Long-Name-Of-A-Header", "content-type", "Server" }

local function choose_value(bytes)
  local value = bytes:take(bytes:upto(20)):gsub("[^\33-\126]", "~")
  if bytes:one_in(16) then value = value .. ("v"):rep(bytes:upto(5000)) end
  return value
end

local function choose_body(bytes)
  local body = bytes:take(bytes:upto(60))
  if bytes:one_in(8) then body = body:rep(bytes:upto(800)) end
  return body
end

local function chunked(body, bytes)
  local parts, at = {}, 1
  while at <= #body do
    local size = math.min(bytes:upto(40) + 1, #body - at + 1)
    if bytes:one_in(6) then size = #body - at + 1 end
    local extension = bytes:one_in(8) and ";a=b" or ""
    parts[#parts + 1] = ((bytes:one_in(4) and "%04X" or "%x") .. "%s\r\n"):format(size, extension) .. body:sub(at, at + size - 1) .. "\r\n"
    at = at + size
  end
  parts[#parts + 1] = "0\r\n" .. (bytes:one_in(6) and "X-Trailer: t\r\n" or "") .. "\r\n"
  return table.concat(parts)
end

local before = {
  "", "", "", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nX-A: early\r\nLink: </x>\r\n\r\n",
  "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\nX-b: c\r\n\r\n",
}
local framings = { "length", "chunked", "close", "length" }

-- Fills in the answer; returns its text and how its body is framed ("none": it has none).
local function good(answer, method, bytes, more)
  local status = answer.status or bytes:of(statuses)
  answer.status, answer.reason, answer.headers = status, bytes:one_in(4) and "" or "Some Reason", {}
  answer.body = choose_body(bytes)
  local old = bytes:one_in(8)
  local lines = { ("HTTP/%s %d %s"):format(old and "1.0" or "1.1", status, answer.reason) }
  local function add(name, value)
    lines[#lines + 1] = name .. (bytes:one_in(5) and ":" or ": ") .. value .. (bytes:one_in(9) and " \t" or "")
    local list = answer.headers[name:lower()] or {}
    list[#list + 1] = value
    answer.headers[name:lower()] = list
  end
  for name, value in pairs(more or {}) do add(name, value) end
  for _ = 1, bytes:upto(4) do add(bytes:of(names), choose_value(bytes)) end
  if bytes:one_in(6) then
    answer.cookie = ("k%d=v%d"):format(#answer.body, #lines)
    add("Set-Cookie", answer.cookie .. bytes:of { "; Path=/", "; HttpOnly; path=/; Max-Age=1000" })
  elseif bytes:one_in(8) then
    add("Set-Cookie", choose_value(bytes))
  end
  if bytes:one_in(10) then add("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"') end
  local framing, sent = bytes:of(framings), answer.body
  if bytes:one_in(4) then
    add("Content-Encoding", "gzip")
    answer.encoded = true
    sent = gzip(sent)
  end
  if old and framing == "chunked" then framing = "close" end
  if method == "HEAD" or has_no_body[status] then
    answer.body = ""
    if method == "HEAD" and framing == "length" then add("Content-Length", #sent) end
    framing, sent = "none", ""
  elseif framing == "length" then
    add("Content-Length", ("%d"):format(#sent))
  elseif framing == "chunked" then
    add("Transfer-Encoding", "chunked")
    sent = chunked(sent, bytes)
  end
  local stays = framing ~= "close" and not old
  if not stays or bytes:one_in(6) then add("Connection", "close") end
  answer.known, answer.ending = "response", "close"
  if stays then answer.ending = bytes:of { "keep", "keep", "close", "shutdown" } end
  local head = bytes:of(before) .. table.concat(lines, "\r\n") .. "\r\n\r\n"
  return head .. sent, framing, #head
end

-- ---- what is broken ----

local function is_cut(answer, text, framing, head, bytes)
  local at = bytes:upto(#text)
  answer.ending = "close"
  if at >= #text then return text end
  answer.known = "error"
  if at >= head and framing == "none" then answer.known = "response" end
  if framing == "chunked" and at == #text - 1 then answer.known = "either" end -- curl does not wait for the last line feed
  if at >= head and framing == "close" then -- nobody can tell that from a whole one
    answer.known = answer.encoded and "either" or "response"
    answer.body = answer.body:sub(1, at - head)
  end
  return text:sub(1, at)
end

local function mutate(text, bytes)
  for _ = 1, bytes:upto(5) + 1 do
    local at, how = bytes:upto(math.min(#text, 600)), bytes:upto(4)
    if how == 0 then
      text = text:sub(1, at) .. bytes:take(bytes:upto(8)) .. text:sub(at + 1)
    elseif how == 1 then
      text = text:sub(1, at) .. text:sub(at + 1 + bytes:upto(12))
    elseif how == 2 then
      text = text:sub(1, at) .. string.char(bytes:byte()) .. text:sub(at + 2)
    elseif how == 3 then
      local stop = at + bytes:upto(40)
      text = text:sub(1, stop) .. text:sub(at + 1)
    else
      text = text:sub(1, at) .. bytes:of { "\r\n", "\0", "\r\n\r\n", "ffffffffffffffff", ":", " ", "-1", "\n" } .. text:sub(at + 1)
    end
  end
  return text
end

local broken_endings = { "close", "close", "abort", "shutdown", "close", "keep", "close", "stall" }

local function unknown(answer, bytes)
  answer.known = nil
  answer.ending = bytes:of(broken_endings)
end

-- ---- what is written ----

local function split(text, bytes)
  local pieces = {}
  local how = bytes:upto(7)
  if how < 4 then return { text } end
  if how == 7 and #text < 400 then
    for at = 1, #text do pieces[at] = text:sub(at, at) end
    return pieces
  end
  local at = 1
  for _ = 1, bytes:upto(6) do
    local size = bytes:upto(60)
    pieces[#pieces + 1] = text:sub(at, at + size - 1)
    at = at + size
  end
  pieces[#pieces + 1] = text:sub(at)
  return pieces
end

local kinds = { "good", "cut", "mutated", "raw", "good", "extra", "mutated", "good" }

--- An answer to a request with this method.
---@param method string
---@param bytes table of spec.support.bytes
---@return spec.Answer
function answers.choose(method, bytes)
  local answer = {}
  local kind = bytes:of(kinds)
  local text, framing, head
  if kind == "raw" then
    text = bytes:take(bytes:upto(120))
    if bytes:one_in(2) then text = "HTTP/1.1 " .. text end
    unknown(answer, bytes)
  else
    text, framing, head = good(answer, method, bytes)
  end
  if kind == "cut" then
    text = is_cut(answer, text, framing, head, bytes)
  elseif kind == "mutated" then
    text = mutate(text, bytes)
    unknown(answer, bytes)
  elseif kind == "extra" and framing ~= "close" then -- the response is over before that
    text = text .. bytes:take(bytes:upto(20))
    answer.extra = true
    if framing == "none" then unknown(answer, bytes) end
  end
  answer.pieces = split(text, bytes)
  return answer
end

--- One that leads elsewhere.
function answers.redirect(method, status, location, bytes)
  local answer = { status = status }
  answer.pieces = split(good(answer, method, bytes, { Location = location }), bytes)
  return answer
end

return answers
