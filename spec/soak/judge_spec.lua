-- spec/soak/judge.lua: what it takes for flat.
local judge = require "spec.soak.judge"

-- Points of f(place), one a second.
local function series(count, f)
  local points = {}
  for place = 1, count do points[place] = { place, f(place) } end
  return points
end

describe("the judge of a soak", function()
  it("takes what does not change for flat", function()
    local found = judge.flat(series(30, function() return 7 end), 0)
    assert.is_true(found.flat)
    assert.are.equal(0, found.slope)
    assert.are.equal(0, found.growth)
  end)

  it("sees what grows steadily, however slowly", function()
    local found = judge.flat(series(30, function(place) return 1000 + place end), 5)
    assert.is_false(found.flat)
    assert.are.equal(1, found.slope)
    assert.are.equal(10, found.growth)
  end)

  it("leaves out the warm-up", function()
    assert.is_true(judge.flat(series(30, function(place) return math.min(place, 10) * 100 end), 0).flat)
  end)

  it("is not moved by outliers, late ones too", function()
    local points = series(30, function(place) return place % 7 == 0 and 5000 or place > 28 and 3000 or 100 end)
    assert.is_true(judge.flat(points, 0).flat)
  end)

  it("sees a step in the last third", function()
    assert.is_false(judge.flat(series(30, function(place) return place > 20 and 12 or 10 end), 1).flat)
  end)

  it("sees growth under noise that is larger", function()
    local state = 1
    local function noise()
      state = (state * 1103515245 + 12345) % 2147483648
      return state % 100
    end
    assert.is_false(judge.flat(series(60, function(place) return 5 * place + noise() end), 40).flat)
    assert.is_true(judge.flat(series(60, noise), 40).flat)
  end)

  it("takes what shrinks for flat", function()
    assert.is_true(judge.flat(series(30, function(place) return 100 - place end), 0).flat)
  end)

  it("gives the same answer for an hour of seconds, of which it looks at some", function()
    assert.is_false(judge.flat(series(3600, function(place) return place end), 100).flat)
    assert.is_true(judge.flat(series(3600, function(place) return place % 10 end), 2).flat)
  end)

  it("refuses to tell of fewer than six samples", function()
    assert.has_error(function() judge.flat(series(5, function() return 1 end), 1) end, "too few samples to tell")
  end)
end)
