-- agather.http: an HTTP client on libcurl. The functions here use one client that keeps its connections but no cookies;
-- make a Client for other defaults, for cookies, or to have an end to the connections.
local Client = require "agather.http.client"
local errors = require "agather.http.errors"
local Headers = require "agather.http.headers"

---@class agather.http
local http = {
  Error = errors.Error,
  ConnectError = errors.ConnectError,
  TimeoutError = errors.TimeoutError,
  TLSError = errors.TLSError,
  ProtocolError = errors.ProtocolError,
  TooManyRedirects = errors.TooManyRedirects,
  BodyTooLarge = errors.BodyTooLarge,
  HTTPStatusError = errors.HTTPStatusError,
}

--- A client: `local client <close> = http.Client { base_url = "https://example.org/api" }`.
---
--- base_url: what relative URLs refer to. headers: sent with each request. timeout: seconds for a whole request, or
--- { connect = 10, read = 30, total = 300 }, which are the defaults; false: none. limits: { max_connections = 100,
--- max_per_host =, keepalive_expiry = }. auth: { user, password }, { user =, password =, digest = true } or
--- { bearer = }. proxy: a URL, or false; nil reads the environment. verify: false, or a file of certificates to trust.
--- cert: { cert =, key =, password = } of the client. http2: true, or "prior" without TLS. cookies: false, or
--- { name = value } for base_url. follow_redirects: false, a number, or { max = 10, allow_downgrade = false }.
--- max_body: bytes of a whole body, decoded; 64 MiB, false: no limit.
---@param options? table
---@return agather.http.Client
function http.Client(options) return Client(options) end

--- Makes headers: { name = value or list of values }, or a list of { name, value } to keep an order.
---@param source? table
function http.Headers(source) return Headers.new(source, 1, "Headers") end

local default

local function default_client()
  default = default or Client({ cookies = false }, true)
  return default
end

--- Makes a request; of the options, those of a client hold for it alone, and there are params, json, form, multipart
--- and body (a string, a function that returns the next piece or nil, or an open file).
---@async
---@param method string
---@param url string
---@param options? table
---@return agather.http.Response
function http.request(method, url, options) return default_client():request(method, url, options) end

---@async
---@return agather.http.Response
function http.get(url, options) return default_client():get(url, options) end
---@async
---@return agather.http.Response
function http.post(url, options) return default_client():post(url, options) end
---@async
---@return agather.http.Response
function http.put(url, options) return default_client():put(url, options) end
---@async
---@return agather.http.Response
function http.patch(url, options) return default_client():patch(url, options) end
---@async
---@return agather.http.Response
function http.delete(url, options) return default_client():delete(url, options) end
---@async
---@return agather.http.Response
function http.head(url, options) return default_client():head(url, options) end
---@async
---@return agather.http.Response
function http.options(url, options) return default_client():options(url, options) end

--- A response whose body is read as it comes; close it: `local response <close> = http.stream("GET", url)`.
---@async
---@return agather.http.Response
function http.stream(method, url, options) return default_client():stream(method, url, options) end

--- Fetches a URL into a file; progress = true shows a line, or a function is told (bytes so far, bytes in total or nil).
---@async
---@return agather.http.Response
function http.download(url, path, options) return default_client():download(url, path, options) end

return http
