local agather = require "agather"
local support = require "spec.support"

local json = agather.json

local function fails(text, source)
  local err = support.raises(text, json.decode, source)
  assert.is_true(agather.is_error(err, json.Error))
  return err
end

describe("json.decode", function()
  it("gives Lua's values", function()
    assert.same({ a = { 1, 2.5, "x", true, false }, b = {} }, json.decode('{"a": [1, 2.5, "x", true, false], "b": {}}'))
    assert.equal("x", json.decode('"x"'))
    assert.equal(json.null, json.decode("null"))
    assert.equal(json.null, json.decode("[null]")[1])
    assert.equal("null", tostring(json.null))
  end)

  it("keeps integers of 64 bits and floats what they are", function()
    assert.equal("integer", math.type(json.decode("1")))
    assert.equal("float", math.type(json.decode("1.0")))
    assert.equal("float", math.type(json.decode("1e2")))
    assert.equal(math.maxinteger, json.decode("9223372036854775807"))
    assert.equal(math.mininteger, json.decode("-9223372036854775808"))
    assert.equal(9007199254740993, json.decode("9007199254740993"))
    fails("too big integer", "9223372036854775808")
    fails("real number overflow", "1e999")
  end)

  it("tells arrays from objects, empty ones too", function()
    local value = json.decode('{"list": [], "object": {}}')
    assert.is_true(json.is_array(value.list))
    assert.is_false(json.is_array(value.object))
    assert.equal('{"list":[],"object":{}}', json.encode(value, { sort = true }))
  end)

  it("takes the last of two members with one name", function()
    assert.same({ a = 2 }, json.decode('{"a": 1, "a": 2}'))
  end)

  it("reads escapes, NUL and characters beyond the first 65,536", function()
    assert.equal("a\0b\n\u{1F600}é", json.decode('"a\\u0000b\\n\\ud83d\\ude00é"'))
    fails("Unicode", '"\\ud800"')
    fails("unable to decode byte 0xff", '"\xff"')
  end)

  it("says what is wrong, and where", function()
    local err = fails("at line 3, column 8", '{\n "a": 1,\n  "b": x\n}')
    assert.equal(3, err.line)
    assert.equal(8, err.column)
    for _, text in ipairs { "", " ", "{", "[1,", "[1,]", "{a: 1}", "'x'", "nul", "01", "+1", "1 2", '"a', '{"a" 1}', "NaN", "Infinity",
      "[1] // no", '{"a\\u0000": 1}' } do
      fails("at line 1, column", text)
    end
  end)

  it("refuses a zero byte wherever it stands, and says where", function()
    for _, text in ipairs { "1\0", "[1\0,2]", "\0001", "\"a\0\"", "12\0003", "{\0}", "-1.5e3\0", "[1] \0" } do
      fails("JSON: ", text)
    end
    local err = fails("zero byte at line 2, column 3", "[1,\n 2\0]")
    assert.equal(2, err.line)
    assert.equal(3, err.column)
  end)

  it("goes no deeper than 512 levels", function()
    local value = json.decode(("["):rep(512) .. ("]"):rep(512))
    for _ = 1, 511 do value = value[1] end
    assert.same({}, value)
    fails("deeper than 512", ("["):rep(513) .. ("]"):rep(513))
    fails("depth", ("["):rep(100000))
    fails("deeper than 512", ('{"a":'):rep(600) .. "1" .. ("}"):rep(600))
  end)

  it("wants a string", function()
    support.raises("bad argument #1 to 'decode' (string expected, got nil)", json.decode)
    local _, err = pcall(function() json.decode(5) end)
    assert.truthy(err:find("^spec/lua/json_spec.lua"))
  end)
end)

describe("json.encode", function()
  it("gives the text of Lua's values", function()
    assert.equal('[1,2.5,"x",true,null,{"a":1}]', json.encode { 1, 2.5, "x", true, json.null, { a = 1 } })
    assert.equal("null", json.encode(nil))
    assert.equal("{}", json.encode {})
    assert.equal("[]", json.encode(json.array {}))
    assert.equal("[]", json.encode(json.array()))
    assert.equal('"\\"\\\\\\n\\u0001\\u0000é/"', json.encode('"\\\n\1\0é/'))
  end)

  it("keeps integers and floats apart, and each float exact", function()
    assert.equal("1", json.encode(1))
    assert.equal("1.0", json.encode(1.0))
    assert.equal("-9223372036854775808", json.encode(math.mininteger))
    assert.equal("0.1", json.encode(0.1))
    for _, number in ipairs { 1 / 3, 1e300, 5e-324, -0.0, 2 ^ 53, 123456789.123 } do
      local back = json.decode(json.encode(number))
      assert.equal(number, back)
      assert.equal("float", math.type(back))
    end
  end)

  it("writes members by name, and lines, when asked to", function()
    assert.equal('{"a":1,"b":2,"c":3}', json.encode({ c = 3, a = 1, b = 2 }, { sort = true }))
    assert.equal('{\n  "a": [\n    1\n  ],\n  "b": {}\n}', json.encode({ b = {}, a = { 1 } }, { sort = true, indent = 2 }))
    assert.equal("[]", json.encode(json.array {}, { indent = 2 }))
  end)

  it("refuses what JSON has not, and says where it stands", function()
    for text, value in pairs {
      ["the value is nan"] = 0 / 0, ["the value is infinite"] = 1 / 0, ["the value is a function"] = print,
      ["value.a[2].b is a thread"] = { a = { 1, { b = coroutine.create(print) } } },
      ["the value is a list with holes"] = { 1, nil, 3 }, ["the value has names as well as places"] = { 1, a = 2 },
      ["the value has a key that is neither"] = { [1.5] = 1 }, ["the value is not UTF-8"] = "\xC3",
    } do
      local err = support.raises(text, json.encode, value)
      assert.is_true(agather.is_error(err, json.Error))
    end
    support.raises("is not UTF-8", json.encode, { ["\xff"] = 1 })
    for _, text in ipairs { "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE0\x80\x80", "\x80" } do
      support.raises("is not UTF-8", json.encode, text)
    end
  end)

  it("refuses tables within themselves and deeper than 512 levels", function()
    local round = {}
    round[1] = round
    support.raises("deeper than 512 levels, or within itself", json.encode, round)
    local deep = 1
    for _ = 1, 512 do deep = { deep } end
    assert.equal(("["):rep(512) .. "1" .. ("]"):rep(512), json.encode(deep))
    support.raises("deeper than 512", json.encode, { deep })
  end)

  it("names unknown options", function()
    support.raises("unknown option 'pretty'", json.encode, 1, { pretty = true })
    support.raises("option 'indent' must be an integer from 0 to 16, got -1", json.encode, 1, { indent = -1 })
    support.raises("bad argument #1 to 'array' (table expected, got number)", json.array, 5)
  end)

  it("gives back what decode gave, for many random values", function()
    math.randomseed(7)
    local function random(depth)
      local kind = math.random(depth > 4 and 5 or 7)
      if kind == 1 then return math.random(0) end
      if kind == 2 then return math.random() * 10 ^ math.random(-20, 20) end
      if kind == 3 then return math.random(2) == 1 end
      if kind == 4 then return json.null end
      if kind == 5 then
        local bytes = {}
        for i = 1, math.random(0, 12) do bytes[i] = utf8.char(math.random(0, 0xD7FF)) end
        return table.concat(bytes)
      end
      local made = kind == 6 and json.array {} or {}
      for i = 1, math.random(0, 5) do made[kind == 6 and i or "k" .. i] = random(depth + 1) end
      return made
    end
    for _ = 1, 300 do
      local value = random(0)
      local text = json.encode(value, { sort = true })
      assert.equal(text, json.encode(json.decode(text), { sort = true }))
      assert.equal(text, json.encode(json.decode(json.encode(value, { indent = 1 })), { sort = true }))
    end
  end)
end)
