-- The scripts of this folder use every builtin: each function of a module and each method of a type is called by one.
local torture = require "spec.support.torture"
local certificates = require "spec.support.certificates"

local scripts = { "core", "sync", "json", "net", "files", "children", "worker", "tls", "http", "luv", "load" }

-- Those that none calls, and why.
local exceptions = {
  ["agather.testing.it"] = "busted's it with testing.async, which is called",
  ["agather.Buffer:clear"] = "nothing of the library calls it",
  ["agather.Buffer:finished"] = "nothing of the library calls it",
  ["agather.Buffer:__len"] = "nothing of the library calls it",
}

-- A state of its own, for luv stays where it is loaded.
local function all()
  local names = {}
  local pipe = assert(io.popen([[lua5.4 -e 'for _, b in ipairs(require "spec.torture.uses".all()) do print(b.name) end']]))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

describe("the scripts that torture.c runs", function()
  local made
  setup(function() made = certificates.make() end)
  teardown(function() made.remove() end)

  it("call every builtin", function()
    local used = {}
    for _, script in ipairs(scripts) do
      local environment = ("TLS_CERTIFICATES=%s SSL_CERT_FILE=%s/ca.pem"):format(made.folder, made.folder)
      local ok, output = torture.run(environment, "uses", script)
      assert.is_true(ok, output)
      for name in output:gmatch("[^\n]+") do used[name] = true end
    end
    local missing, names = {}, all()
    assert.is_true(#names > 300, #names .. " builtins were found")
    for _, name in ipairs(names) do
      if not used[name] and not exceptions[name] then missing[#missing + 1] = name end
    end
    assert.same({}, missing)
    for name in pairs(exceptions) do assert.is_nil(used[name], name .. " is no exception any more") end
  end)

  it("are all tried", function()
    for _, script in ipairs(scripts) do assert(io.open(("spec/torture/%s_spec.lua"):format(script))):close() end
    local tried = {}
    local pipe = assert(io.popen("ls spec/torture"))
    for line in pipe:lines() do tried[#tried + 1] = line:match("^(%w+)_spec%.lua$") end
    pipe:close()
    assert.equal(#scripts + 1, #tried) -- with this one
  end)
end)
