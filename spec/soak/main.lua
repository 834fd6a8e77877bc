-- The soak: everything at once, for a minute or for hours, and nothing may grow.
-- Usage: main.lua [SECONDS] [--parts tasks,net,...] [--leak KIND] [--out FOLDER]
-- Prints a line "ok - ..." or "not ok - ..." for each thing that must hold; writes samples.csv and soak.svg to FOLDER.
local agather = require "agather"
local certificates = require "spec.support.certificates"
local chart = require "spec.soak.chart"
local engine = require "spec.soak.engine"
local judge = require "spec.soak.judge"
local leaks = require "spec.soak.leaks"
local sample = require "spec.soak.sample"

local all_parts = { "tasks", "net", "http", "processes", "files", "workers" }

-- What is sampled, in the order of the columns and panels, and how much growth is tolerated after the warm-up: in
-- absolute terms and as a part of what was there.
-- The HTTP client keeps up to 8 connections, whose two ends and handlers come and go.
local quantities = {
  { name = "rss", title = "memory", unit = "MiB resident", scale = 1024, tolerance = 3072, share = 0.05 },
  { name = "lua", title = "Lua's memory", unit = "MiB collected", scale = 1024, tolerance = 96, share = 0.02 },
  { name = "descriptors", title = "descriptors", unit = "open", tolerance = 10, share = 0 },
  { name = "tasks", title = "tasks", unit = "not done", tolerance = 5, share = 0 },
  { name = "threads", title = "threads", unit = "alive", tolerance = 0.5, share = 0 },
  { name = "children", title = "children", unit = "alive or zombies", tolerance = 0.5, share = 0 },
}

local LEAST_QUIET = 9 -- samples from which it can be told whether something grows

local sanitized = package.searchpath("agather.core", package.cpath):find("asan", 1, true) ~= nil

-- ---- the command line ----

local function usage()
  io.stderr:write("usage: main.lua [SECONDS] [--parts ", table.concat(all_parts, ","),
    "] [--leak tasks|descriptors|memory|children] [--out FOLDER]\n")
  os.exit(2)
end

local function parse(words)
  local options, place = { seconds = 60, parts = all_parts, out = "build/soak" }, 1
  while words[place] do
    local word, value = words[place], words[place + 1]
    if word == "--leak" then
      if not leaks[value] then usage() end
      options.leak = value
    elseif word == "--out" and value then
      options.out = value
    elseif word == "--parts" and value then
      options.parts = {}
      for name in value:gmatch("[^,]+") do options.parts[#options.parts + 1] = name end
    elseif tonumber(word) and tonumber(word) >= 1 then
      options.seconds = tonumber(word)
      place = place - 1
    else
      usage()
    end
    place = place + 2
  end
  return options
end

-- ---- what goes on beside the parts ----

-- The modes of the collector, in turn; AGATHER_COLLECTOR sets one for good.
local modes = {
  function() collectgarbage("incremental", 200, 100) end,
  function() collectgarbage("generational", 20, 100) end,
  function() collectgarbage("incremental", 100, 400) end,
  function() collectgarbage("incremental", 0) end,
}

local function fix_collector()
  local mode = os.getenv("AGATHER_COLLECTOR")
  if mode == "generational" then collectgarbage("generational", 1, 1) end
  if mode == "incremental" then collectgarbage("incremental", 0) end
  return mode ~= nil
end

local function change_collector(seconds)
  local place = 0
  while true do
    place = place % #modes + 1
    modes[place]()
    agather.sleep(seconds)
  end
end

local function leak(kind, seconds)
  while true do
    leaks[kind]()
    agather.sleep(seconds / 60)
  end
end

-- ---- samples ----

local function csv_line(file, soak, seconds, taken, quiet)
  local cells = { ("%.1f"):format(seconds), quiet and "quiet" or "" }
  for _, quantity in ipairs(quantities) do cells[#cells + 1] = ("%g"):format(taken[quantity.name] or 0) end
  cells[#cells + 1] = ("%.2f"):format(taken.processor)
  for _, name in ipairs(soak.names) do cells[#cells + 1] = soak.counts[name] end
  cells[#cells + 1] = soak.failures
  file:write(table.concat(cells, ","), "\n")
  file:flush()
end

local function csv_head(file, soak)
  local cells = { "seconds", "quiet" }
  for _, quantity in ipairs(quantities) do cells[#cells + 1] = quantity.name end
  cells[#cells + 1] = "processor"
  for _, name in ipairs(soak.names) do cells[#cells + 1] = '"' .. name .. '"' end
  cells[#cells + 1] = "failures"
  file:write(table.concat(cells, ","), "\n")
end

-- Samples each second, and about 30 times in all when everything has halted: longer than it was told to where a busy
-- machine has let it come to few of these. What was sampled is in the file alone: kept here it would grow.
local function sample_all(soak, seconds, file)
  local loop = agather.get_running_loop()
  local started = loop:time()
  local quiet_each = math.max(seconds / 30, math.min(2, seconds / 12))
  local step = math.min(1, seconds / 30)
  local next_quiet, next_sample, quiet_count = quiet_each, step, 0
  while loop:time() - started < seconds or quiet_count < LEAST_QUIET do
    agather.sleep(math.max(0, started + next_sample - loop:time()))
    next_sample = math.max(next_sample + step, loop:time() - started)
    local quiet = next_sample >= next_quiet
    local taken
    if quiet then
      next_quiet = math.max(next_quiet + quiet_each, next_sample + quiet_each / 2)
      soak:halt()
      taken = sample.take_quiet()
      quiet_count = quiet_count + 1
      soak:go_on()
    else
      taken = sample.take()
    end
    csv_line(file, soak, loop:time() - started, taken, quiet)
  end
end

-- What sample_all has written.
local function read_records(path)
  local records = {}
  for line in io.lines(path) do
    local cells = {}
    for cell in line:gmatch("[^,]*") do cells[#cells + 1] = cell end
    local record = { seconds = tonumber(cells[1]), quiet = cells[2] == "quiet" }
    for place, quantity in ipairs(quantities) do record[quantity.name] = tonumber(cells[place + 2]) end
    if not record.quiet then record.lua = nil end
    if record.seconds then records[#records + 1] = record end
  end
  return records
end

local function points_of(records, name, quiet)
  local points = {}
  for _, record in ipairs(records) do
    if record.quiet == quiet and record[name] then points[#points + 1] = { record.seconds, record[name] } end
  end
  return points
end

-- ---- the verdict ----

local failed = false

local function say(ok, text, ...)
  print((ok and "ok - " or "not ok - ") .. text:format(...))
  io.stdout:flush()
  failed = failed or not ok
end

local function judge_parts(soak, parts)
  for _, part in ipairs(parts) do
    local count, failures, idle = 0, 0, {}
    for _, name in ipairs(soak.names) do
      if name:find(part.name .. ":", 1, true) == 1 then
        count = count + soak.counts[name]
        if soak.counts[name] == 0 then idle[#idle + 1] = name end
      end
    end
    for name, times in pairs(soak.failed) do
      if name:find(part.name .. ":", 1, true) == 1 then failures = failures + times end
    end
    say(failures == 0 and #idle == 0, "%s: %d operations, %d failed%s", part.name, count, failures,
      #idle > 0 and "; never done: " .. table.concat(idle, "; ") or "")
  end
  for name, times in pairs(soak.failed) do say(false, "%s failed %d times", name, times) end
end

local function judge_flatness(records)
  for _, quantity in ipairs(quantities) do
    local points = points_of(records, quantity.name, true)
    if sanitized and quantity.name == "rss" then
      print("# memory of a sanitized process tells nothing")
    else
      local found = judge.flat(points, quantity.tolerance + quantity.share * points[#points // 2][2])
      local scale = quantity.scale or 1
      say(found.flat, "%s stay flat: %.2f, then %.2f (%s; %+.3f a minute)", quantity.title, found.before / scale,
        found.after / scale, quantity.unit, found.slope * 60 / scale)
    end
  end
end

local function judge_end(before, after)
  for _, name in ipairs { "descriptors", "children", "threads", "tasks" } do
    say(after[name] == before[name], "%s: %d at the end as at the beginning (%d)", name, after[name], before[name])
  end
  -- The library keeps Lua threads of tasks that have ended for others, some 100 KiB more after the rush.
  say(after.lua <= before.lua * 1.02 + 768, "Lua's memory at the end: %.2f MiB; at the beginning: %.2f", after.lua / 1024,
    before.lua / 1024)
end

local function plot(records, soak, options, share)
  local panels = {}
  for _, quantity in ipairs(quantities) do
    local function scaled(quiet)
      local points = points_of(records, quantity.name, quiet)
      for _, point in ipairs(points) do point[2] = point[2] / (quantity.scale or 1) end
      return points
    end
    panels[#panels + 1] = {
      title = quantity.title, unit = quantity.unit, points = scaled(false), quiet = scaled(true), from_zero = true,
    }
  end
  local subtitle = ("%d operations in %.0f s, %d failed; %.0f %% of a core. Light: each second; dark: when all had come to its end")
    :format(soak:total(), options.seconds, soak.failures, share * 100)
  local file <close> = assert(io.open(options.out .. "/soak.svg", "w"))
  file:write(chart.draw("What a process holds while everything goes on", subtitle, panels, options.seconds))
end

-- ---- running ----

local function report_handler(soak)
  return function(context)
    if tostring(context.exception):find("on purpose", 1, true) then
      soak.expected_reports = soak.expected_reports + 1
    else
      soak:fail("report", context.message .. ": " .. tostring(context.exception))
    end
  end
end

local function new_folder()
  local pipe <close> = assert(io.popen("mktemp -d"))
  return pipe:read("l")
end

local function names_of(counts)
  local names = {}
  for name in pairs(counts) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function soak_through(soak, parts, options)
  soak:start(parts) -- once to the end, so that what is made with the first use is there
  soak:stop()
  soak.names = names_of(soak.counts)
  sample.take()
  local before = sample.take_quiet()
  local helpers, path = {}, options.out .. "/samples.csv"
  local file = assert(io.open(path, "w"))
  csv_head(file, soak)
  local processor, started = os.clock(), agather.get_running_loop():time()
  soak:start(parts)
  if not fix_collector() then helpers[1] = agather.spawn(change_collector, math.max(1, options.seconds / 40)) end
  if options.leak then helpers[#helpers + 1] = agather.spawn(leak, options.leak, options.seconds) end
  sample_all(soak, options.seconds, file)
  local share = (os.clock() - processor) / (agather.get_running_loop():time() - started)
  soak:stop()
  file:close()
  for _, helper in ipairs(helpers) do
    helper:cancel()
    pcall(helper.await, helper)
  end
  local after, records = sample.take_quiet(), read_records(path)
  judge_parts(soak, parts)
  judge_flatness(records)
  judge_end(before, after)
  print(("# %d operations; %.0f %% of a core without children"):format(soak:total(), share * 100))
  plot(records, soak, options, share)
end

local function main()
  local options = parse(arg)
  local parts = {}
  for place, name in ipairs(options.parts) do parts[place] = require("spec.soak.parts." .. name) end
  assert(os.execute("mkdir -p '" .. options.out .. "'"))
  local folder, made = new_folder(), nil
  if table.concat(options.parts, " "):find("net", 1, true) then made = certificates.make() end
  local ok, err = pcall(agather.run, function()
    local soak = engine.new(1)
    soak.certificates, soak.folder = made, folder
    agather.get_running_loop():set_exception_handler(report_handler(soak))
    soak_through(soak, parts, options)
  end)
  if made then made.remove() end
  os.execute("rm -rf '" .. folder .. "'")
  if not ok then
    say(false, "the soak itself failed: %s", tostring(err))
  end
  os.exit(failed and 1 or 0, true)
end

main()
