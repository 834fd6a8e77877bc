-- The chart of the README: how the cost of a task grows with their number, log-log, as plain SVG.
local report = require "bench.report"

local chart = {}

local sizes = { { "spawn_1k", 1e3 }, { "spawn_10k", 1e4 }, { "spawn_100k", 1e5 }, { "spawn_1m", 1e6 } }
local width, height = 760, 440
local left, right, top, bottom = 70, 140, 56, 56 -- margins
local label_height = 15

local colours = {
  agather = "#c2185b", bare = "#455a64", asyncio = "#1565c0", uvloop = "#0097a7", cqueues = "#6d4c41", luv = "#7b1fa2",
  node = "#2e7d32", go1 = "#ef6c00", go2 = "#f9a825",
}

local function log10(value) return math.log(value, 10) end

-- Points of a peer: { number of tasks, ns per task } where it was measured.
local function points_of(results, peer)
  local points = {}
  for _, size in ipairs(sizes) do
    local row = results[size[1]]
    local median = row and row[peer.name] and report.median(row[peer.name].nanoseconds_per_unit)
    if median then points[#points + 1] = { size[2], median } end
  end
  return points
end

-- Moves labels apart, from the top to the bottom, and back up if that went below the plot.
local function spread(labels, lowest)
  table.sort(labels, function(a, b) return a.y < b.y end)
  for i = 2, #labels do labels[i].y = math.max(labels[i].y, labels[i - 1].y + label_height) end
  for i = #labels, 1, -1 do
    local limit = labels[i + 1] and labels[i + 1].y - label_height or lowest
    labels[i].y = math.min(labels[i].y, limit)
  end
end

local function thousands(value)
  if value >= 1e6 then return ("%gM"):format(value / 1e6) end
  if value >= 1e3 then return ("%gk"):format(value / 1e3) end
  return ("%g"):format(value)
end

--- SVG text; nil when agather was not measured at every size.
function chart.draw(results, peers, machine)
  local series, least, most = {}, math.huge, 0
  for _, peer in ipairs(peers) do
    local points = points_of(results, peer)
    if #points == #sizes then
      series[#series + 1] = { peer = peer, points = points }
      for _, point in ipairs(points) do
        least, most = math.min(least, point[2]), math.max(most, point[2])
      end
    end
  end
  if #series == 0 or series[1].peer.name ~= "agather" then return nil end

  local low, high = log10(least) - 0.1, log10(most) + 0.1
  local function x_of(count) return left + (log10(count) - 3) / 3 * (width - left - right) end
  local function y_of(time) return height - bottom - (log10(time) - low) / (high - low) * (height - top - bottom) end

  local lines = {}
  local function add(format, ...) lines[#lines + 1] = format:format(...) end
  add('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">', width,
    height)
  add('<rect width="%d" height="%d" fill="#ffffff"/>', width, height)
  add('<text x="%d" y="22" font-size="15" font-weight="bold" fill="#212121">Spawn and gather: ns per task</text>', left)
  add('<text x="%d" y="40" fill="#616161">%s, %d cores; medians; lower is better</text>', left, machine.processor,
    machine.cores)

  for exponent = math.floor(low), math.ceil(high) do
    for _, step in ipairs { 1, 2, 5 } do
      local time = step * 10.0 ^ exponent
      if log10(time) >= low and log10(time) <= high then
        local y = y_of(time)
        add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="%s"/>', left, width - right, y, y,
          step == 1 and "#bdbdbd" or "#eeeeee")
        add('<text x="%d" y="%.1f" text-anchor="end" fill="#616161">%s</text>', left - 8, y + 4, thousands(time))
      end
    end
  end
  for _, size in ipairs(sizes) do
    local x = x_of(size[2])
    add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#eeeeee"/>', x, x, top, height - bottom)
    add('<text x="%.1f" y="%d" text-anchor="middle" fill="#616161">%s</text>', x, height - bottom + 18,
      thousands(size[2]))
  end
  add('<text x="%d" y="%d" text-anchor="middle" fill="#616161">tasks at once</text>',
    (left + width - right) // 2, height - 14)

  local labels = {}
  for i = #series, 1, -1 do -- agather last, on top
    local name, places = series[i].peer.name, {}
    local colour, ours = colours[name] or "#757575", name == "agather"
    for n, point in ipairs(series[i].points) do
      places[n] = ("%.1f,%.1f"):format(x_of(point[1]), y_of(point[2]))
      add('<circle cx="%.1f" cy="%.1f" r="%s" fill="%s"/>', x_of(point[1]), y_of(point[2]), ours and "4" or "2.5",
        colour)
    end
    add('<polyline points="%s" fill="none" stroke="%s" stroke-width="%s"/>', table.concat(places, " "), colour,
      ours and "3.5" or "1.6")
    labels[#labels + 1] = {
      y = y_of(series[i].points[#sizes][2]) + 4, colour = colour, weight = ours and "bold" or "normal",
      text = ("%s, %s"):format(series[i].peer.title, thousands(math.floor(series[i].points[#sizes][2] + 0.5))),
    }
  end
  spread(labels, height - bottom)
  for _, label in ipairs(labels) do
    add('<text x="%d" y="%.1f" fill="%s" font-weight="%s">%s</text>', width - right + 8, label.y, label.colour,
      label.weight, label.text)
  end
  add("</svg>\n")
  return table.concat(lines, "\n")
end

return chart
