-- Whether a quantity is flat: after a warm-up third, neither the middles of the second and the last third nor the slope
-- of Theil and Sen, which outliers do not move, may tell of more growth than is tolerated.
local judge = {}

local MOST_POINTS = 300 -- the slope looks at each pair

local function median(values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local middle = (#sorted + 1) // 2
  return #sorted % 2 == 1 and sorted[middle] or (sorted[middle] + sorted[middle + 1]) / 2
end

-- The median of the slopes of all pairs of points.
local function slope(points)
  local step, slopes = math.max(1, #points // MOST_POINTS), {}
  for i = 1, #points, step do
    for j = i + step, #points, step do
      slopes[#slopes + 1] = (points[j][2] - points[i][2]) / (points[j][1] - points[i][1])
    end
  end
  return median(slopes)
end

local function values_of(points, first, last)
  local values = {}
  for place = first, last do values[#values + 1] = points[place][2] end
  return values
end

--- [points] is a list of { seconds, value }, in the order of time; at least 6.
---@param points number[][]
---@param tolerance number the growth that is tolerated from the middle of the second third to that of the last
---@return { flat: boolean, slope: number, before: number, after: number, growth: number }
function judge.flat(points, tolerance)
  local count = #points
  assert(count >= 6, "too few samples to tell")
  local warm, late = count // 3 + 1, count - (count - count // 3) // 2 + 1
  local after_warm_up = table.move(points, warm, count, 1, {})
  local before, after = median(values_of(points, warm, late - 1)), median(values_of(points, late, count))
  local per_second = slope(after_warm_up)
  local growth = math.max(after - before, per_second * (points[count][1] - points[warm][1]) / 2)
  return { flat = growth <= tolerance, slope = per_second, before = before, after = after, growth = growth }
end

return judge
