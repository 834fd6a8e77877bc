-- Medians, ratios, bounds, and the table, which is Markdown so that it can stand in the README.
local report = {}

function report.median(samples)
  if not samples or #samples == 0 then return nil end
  local sorted = table.move(samples, 1, #samples, 1, {})
  table.sort(sorted)
  local middle = (#sorted + 1) // 2
  return #sorted % 2 == 1 and sorted[middle] or (sorted[middle] + sorted[middle + 1]) / 2
end

local function number(value)
  if value >= 1e5 then return ("%.0fk"):format(value / 1e3) end
  if value >= 100 then return ("%.0f"):format(value) end
  if value >= 10 then return ("%.1f"):format(value) end
  return ("%.2f"):format(value)
end

-- The figure of a peer in a row, in the metric's unit.
local function figure(results, row, metric, peer)
  local samples = results[row] and results[row][peer] and results[row][peer][metric.key]
  local median = report.median(samples)
  return median and median * (metric.scale or 1)
end

-- What one peer's figure is over another's of the same row: the median over the rounds in which both were measured, one
-- after the other, for a machine may be a quarter slower in one round than in the next.
local function ratio_of(results, row, metric, peer, other)
  local above, below = results[row] and results[row][peer], results[row] and results[row][other]
  if not (above and above[metric.key] and below and below[metric.key]) then return nil end
  local places, ratios = {}, {}
  for place, round in ipairs(below.rounds) do places[round] = place end
  for place, round in ipairs(above.rounds) do
    if places[round] then ratios[#ratios + 1] = above[metric.key][place] / below[metric.key][places[round]] end
  end
  return report.median(ratios)
end

--- How agather stands to the bound of a metric: its figure, or how many times the peer's it is; the bound in words; and
--- whether it keeps it (nil when one of the two was not measured).
function report.judge(results, row, metric)
  local bound = metric.bound
  if not bound then return nil end
  local ours = figure(results, row.name, metric, "agather")
  if bound.limit then
    return ours, ("%g %s"):format(bound.limit, metric.unit), ours and ours <= bound.limit
  end
  local peers = type(bound.of) == "table" and bound.of or { bound.of }
  local best, best_peer
  for _, peer in ipairs(peers) do
    local theirs = figure(results, bound.row or row.name, metric, peer)
    if theirs and (not best or (theirs > best) == (metric.more_is_better or false)) then best, best_peer = theirs, peer end
  end
  local words = ("%g x %s"):format(bound.factor, table.concat(peers, " and "))
  if bound.row then words = words .. "'s " .. bound.row end
  local ratio
  if bound.row then
    ratio = ours and best and ours / best
  else
    ratio = best and ratio_of(results, row.name, metric, "agather", best_peer)
  end
  if not ratio then return nil, words, nil end
  if metric.more_is_better then return ratio, words, ratio >= bound.factor end
  return ratio, words, ratio <= bound.factor
end

-- "bound" column: how it stands, marked when the bound is missed.
local function verdict(results, row, metric)
  local standing, words, kept = report.judge(results, row, metric)
  if not words then return "" end
  local sign = metric.more_is_better and "at least" or "at most"
  if kept == nil then return ("%s %s: not measured"):format(sign, words) end
  return ("%s%s %s: %.2f"):format(kept and "" or "**MISSED** ", sign, words, standing), not kept
end

local function cell(results, row, metric, peer, ours)
  local of_peer = results[row.name][peer.name]
  if not of_peer then return "" end
  if of_peer.missing then return "missing" end
  if of_peer.failed and not of_peer[metric.key] then return "failed" end
  local value = figure(results, row.name, metric, peer.name)
  if not value then return "-" end
  if peer.name == "agather" or not ours then return number(value) end
  local ratio = ratio_of(results, row.name, metric, peer.name, "agather")
  if not ratio then return number(value) end
  return (ratio < 9.95 and "%s (%.2g x)" or "%s (%.0f x)"):format(number(value), ratio)
end

local function write_table(write, lines)
  local widths = {}
  for _, line in ipairs(lines) do
    for i, text in ipairs(line) do widths[i] = math.max(widths[i] or 3, #text) end
  end
  for n, line in ipairs(lines) do
    local parts = {}
    for i, text in ipairs(line) do parts[i] = text .. (" "):rep(widths[i] - #text) end
    write("| " .. table.concat(parts, " | ") .. " |")
    if n == 1 then
      for i, width in ipairs(widths) do parts[i] = ("-"):rep(width) end
      write("| " .. table.concat(parts, " | ") .. " |")
    end
  end
end

local function title(row, quick)
  local count = quick and row.quick or row.count
  return (row.title:format(count >= 1e6 and ("%gM"):format(count / 1e6) or ("%gk"):format(count / 1e3)))
end

-- A table of these rows with a column for each peer that has a figure in one of them, or is missing.
local function write_rows(write, rows, measured, missed)
  local peers, results, quick = measured.peers, measured.results, measured.quick
  local columns = {}
  for _, peer in ipairs(peers) do
    for _, row in ipairs(rows) do
      if results[row.name][peer.name] then
        columns[#columns + 1] = peer
        break
      end
    end
  end
  local head = { "work", "unit" }
  for _, peer in ipairs(columns) do head[#head + 1] = peer.title end
  head[#head + 1] = "bound"
  local lines = { head }
  for _, row in ipairs(rows) do
    for i, metric in ipairs(row.metrics) do
      local line = { i == 1 and title(row, quick) or "", metric.unit }
      local ours = figure(results, row.name, metric, "agather")
      for _, peer in ipairs(columns) do line[#line + 1] = cell(results, row, metric, peer, ours) end
      local text, is_missed = verdict(results, row, metric)
      line[#line + 1] = text
      if is_missed then
        missed[#missed + 1] = #row.metrics > 1 and ("%s (%s)"):format(row.name, metric.unit) or row.name
      end
      lines[#lines + 1] = line
    end
  end
  write_table(write, lines)
  write("")
end

-- How many times more a task costs among a million than among a thousand.
local function write_growth(write, measured)
  local parts = {}
  for _, peer in ipairs(measured.peers) do
    local metric = { key = "nanoseconds_per_unit" }
    local few = figure(measured.results, "spawn_1k", metric, peer.name)
    local many = figure(measured.results, "spawn_1m", metric, peer.name)
    if few and many then parts[#parts + 1] = ("%s %.1f x"):format(peer.title, many / few) end
  end
  if #parts == 0 then return end
  write("What a task costs among 1M over what it costs among 1k: " .. table.concat(parts, ", ") .. ".\n")
end

--- What was measured and where, and which bounds are missed, as Markdown.
function report.text(measured)
  local machine, missed, lines = measured.machine, {}, {}
  local function write(line) lines[#lines + 1] = line end
  write(("%s, %s cores, %s, %s; %s; agather at %s; %s"):format(machine.processor, machine.cores, machine.memory,
    machine.kernel, machine.lua, machine.revision, machine.date))
  local versions = {}
  for _, peer in ipairs(measured.peers) do
    versions[#versions + 1] = peer.title .. " " .. (peer.missing and "missing" or peer.found)
  end
  write(table.concat(versions, "; "))
  write(("Medians of %s%s; ratios, in brackets and of bounds, are medians of each round's, and those in brackets are "
    .. "times agather's figure. Load average at the start: %s."):format(
    measured.rounds == 1 and "one round" or ("%d rounds or more, fewer of what is slow"):format(measured.rounds),
    measured.quick and " of --quick, whose small sizes only indicate" or "", machine.load))
  write("")
  local tasks, servers, clients = {}, {}, {}
  for _, row in ipairs(measured.rows) do
    local group = row.kind == "server" and servers or row.kind == "client" and clients or tasks
    group[#group + 1] = row
  end
  if #tasks > 0 then write_rows(write, tasks, measured, missed) end
  write_growth(write, measured)
  if #servers > 0 then write_rows(write, servers, measured, missed) end
  if #clients > 0 then write_rows(write, clients, measured, missed) end
  for _, peer in ipairs(measured.peers) do
    if peer.missing then write(("%s is missing: %s"):format(peer.title, peer.missing)) end
  end
  write(#missed == 0 and "Every bound measured is kept." or "Bounds missed: " .. table.concat(missed, ", ") .. ".")
  return table.concat(lines, "\n")
end

return report
