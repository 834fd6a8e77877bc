-- The plot of a soak: a panel for each quantity over time, one under the other, as plain SVG.
local chart = {}

local width, left, right, top = 760, 110, 20, 50
local panel_height, gap = 64, 22
local MOST_POINTS = 240 -- of a line; more are drawn as the range that they cover

local function bounds(series)
  local least, most = math.huge, -math.huge
  for _, points in ipairs { series.points, series.quiet or {} } do
    for _, point in ipairs(points) do least, most = math.min(least, point[2]), math.max(most, point[2]) end
  end
  least = series.from_zero and math.min(0, least) or least
  if most - least < (series.least_range or 1) then most = least + (series.least_range or 1) end
  return least, most
end

-- The least and the most of each stretch of time.
local function ranges(points)
  local size, found = math.max(1, math.ceil(#points / MOST_POINTS)), {}
  for first = 1, #points, size do
    local least, most = math.huge, -math.huge
    for place = first, math.min(first + size - 1, #points) do
      least, most = math.min(least, points[place][2]), math.max(most, points[place][2])
    end
    found[#found + 1] = { points[math.min(first + size // 2, #points)][1], least, most }
  end
  return found
end

local function number_text(value)
  return value == math.floor(value) and ("%d"):format(value) or ("%.1f"):format(value)
end

--- [panels] are { title =, unit =, points = { { seconds, value }, ... }, quiet = the same when nothing went on,
--- from_zero =, least_range = }. Light: what was there each second; dark: the same when everything had come to its end.
---@return string svg
function chart.draw(title, subtitle, panels, seconds)
  local height = top + #panels * (panel_height + gap) + 24
  local lines = {}
  local function add(format, ...) lines[#lines + 1] = format:format(...) end
  add('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">', width, height)
  add('<rect width="%d" height="%d" fill="#ffffff"/>', width, height)
  add('<text x="%d" y="20" font-size="15" font-weight="bold" fill="#212121">%s</text>', left, title)
  add('<text x="%d" y="36" fill="#616161">%s</text>', left, subtitle)
  local function x_of(time) return left + time / seconds * (width - left - right) end
  for place, panel in ipairs(panels) do
    local bottom = top + place * (panel_height + gap) - gap
    local least, most = bounds(panel)
    local function y_of(value) return bottom - (value - least) / (most - least) * panel_height end
    add('<text x="%d" y="%.1f" fill="#212121" font-weight="bold">%s</text>', 8, bottom - panel_height / 2, panel.title)
    add('<text x="%d" y="%.1f" fill="#616161">%s</text>', 8, bottom - panel_height / 2 + 14, panel.unit)
    for _, value in ipairs { least, most } do
      add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#e0e0e0"/>', left, width - right, y_of(value), y_of(value))
      add('<text x="%d" y="%.1f" text-anchor="end" fill="#616161">%s</text>', left - 5, y_of(value) + 4, number_text(value))
    end
    local upper, lower = {}, {}
    for n, range in ipairs(ranges(panel.points)) do
      upper[n] = ("%.0f,%.1f"):format(x_of(range[1]), y_of(range[3]))
      lower[n] = ("%.0f,%.1f"):format(x_of(range[1]), y_of(range[2]))
    end
    local around = table.move(upper, 1, #upper, 1, {})
    for n = #lower, 1, -1 do around[#around + 1] = lower[n] end
    if #around > 0 then
      add('<polygon points="%s" fill="#bbdefb" stroke="#90caf9" stroke-width="0.8"/>', table.concat(around, " "))
    end
    local quiet = {}
    for n, point in ipairs(panel.quiet or {}) do quiet[n] = ("%.0f,%.1f"):format(x_of(point[1]), y_of(point[2])) end
    if #quiet > 0 then
      add('<polyline points="%s" fill="none" stroke="#c2185b" stroke-width="1.8"/>', table.concat(quiet, " "))
    end
  end
  for part = 0, 6 do
    local time = seconds * part / 6
    add('<text x="%.0f" y="%d" text-anchor="middle" fill="#616161">%s</text>', x_of(time), height - 10,
      seconds >= 600 and ("%.0f min"):format(time / 60) or ("%.0f s"):format(time))
  end
  add("</svg>\n")
  return table.concat(lines, "\n")
end

return chart
