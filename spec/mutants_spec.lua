-- What .ci/mutants and docs/reliability.md stand on: each mutant can be made, and each promise names tests and mutants
-- that are there. That the specs see the mutants takes minutes, and is what .ci/mutants tries.
local mutants = require "spec.mutants"

local function read(path)
  local file = io.open(path)
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

-- The sentences of a spec, and those of the program of cases that it runs.
local function sentences(spec)
  return (read(spec) or "") .. (read((spec:gsub("_spec%.lua$", ".c"))) or "")
end

local function count(text, part)
  local n, from = 0, 1
  while true do
    local first, last = text:find(part, from, true)
    if not first then return n end
    n, from = n + 1, last + 1
  end
end

-- The promises of docs/reliability.md: title, tests { path, sentence }, mutants.
local function promises()
  local list, current = {}, nil
  for line in (read("docs/reliability.md") .. "\n"):gmatch("(.-)\n") do
    local title = line:match("^%*%*(.-)%*%*")
    if title then
      current = { title = title, tests = {}, mutants = {} }
      list[#list + 1] = current
    elseif line:find("^#") then
      current = nil
    elseif current then
      local path, quoted = line:match("^%- `(spec/[^`]+)`:? ?(.*)$")
      local names = line:match("^%- mutants: (.*)$")
      if path then current.path = path end
      for sentence in (quoted or not names and line:find("^  ") and line or ""):gmatch('"([^"]+)"') do
        current.tests[#current.tests + 1] = { current.path, sentence }
      end
      if path and quoted == "" then current.tests[#current.tests + 1] = { path } end
      if names or current.listing and line:find("^  `") then
        for name in (names or line):gmatch("`([^`]+)`") do current.mutants[#current.mutants + 1] = name end
        current.listing = true
      else
        current.listing = false
      end
    end
  end
  return list
end

describe("the mutants", function()
  it("have names of their own", function()
    local seen = {}
    for _, mutant in ipairs(mutants) do
      assert.is_nil(seen[mutant.name], mutant.name)
      seen[mutant.name] = true
    end
  end)

  it("replace something that stands exactly once in its file, by something else", function()
    for _, mutant in ipairs(mutants) do
      local text = assert(read(mutant.file), mutant.file)
      assert.equal(1, count(text, mutant.text), mutant.name .. ": its text in " .. mutant.file)
      assert.not_equal(mutant.text, mutant.with, mutant.name)
    end
  end)

  it("name a spec, and a sentence that it has", function()
    for _, mutant in ipairs(mutants) do
      assert.is_string(read(mutant.spec), mutant.spec)
      if mutant.it then assert.is_true(count(sentences(mutant.spec), mutant.it) > 0, mutant.name .. ": " .. mutant.it) end
    end
  end)

  it("are in every file of the core and of the modules in C, and in every file of Lua that decides something", function()
    local mutated = {}
    for _, mutant in ipairs(mutants) do mutated[mutant.file] = true end
    local without = { -- tables of names, and what they call
      ["src/core/entry.c"] = true, ["src/http/module.c"] = true, ["src/tls/module.c"] = true,
      ["src/core/shuffle.c"] = true, -- of a build of its own
      ["lua/agather/meta.lua"] = true, ["lua/agather/net_meta.lua"] = true, ["lua/agather/http.lua"] = true,
    }
    local files = assert(io.popen("find src/core src/uv src/tls src/http src/json lua -name '*.c' -o -name '*.lua' | sort"))
    local missing = {}
    for path in files:lines() do
      if not mutated[path] and not without[path] then missing[#missing + 1] = path end
    end
    files:close()
    assert.same({}, missing)
  end)
end)

describe("docs/reliability.md", function()
  it("names tests that are there, for each promise", function()
    for _, promise in ipairs(promises()) do
      assert.is_true(#promise.tests > 0, promise.title)
      for _, test in ipairs(promise.tests) do
        assert.is_string(read(test[1]), promise.title .. " " .. tostring(test[1]))
        if test[2] then assert.is_true(count(sentences(test[1]), test[2]) > 0, test[1] .. ": " .. test[2]) end
      end
    end
  end)

  it("names a mutant for each promise, and each mutant", function()
    local left = {}
    for _, mutant in ipairs(mutants) do left[mutant.name] = true end
    local known = {}
    for name in pairs(left) do known[name] = true end
    for _, promise in ipairs(promises()) do
      assert.is_true(#promise.mutants > 0, promise.title)
      for _, name in ipairs(promise.mutants) do
        assert.is_true(known[name], promise.title .. ": " .. name)
        left[name] = nil
      end
    end
    assert.same({}, left)
  end)
end)
