-- The benchmarks: ./run bench/all.lua [--quick] [--rounds N] [--readme] [--peer NAME]... [ROW]...
-- Runs every row of bench/rows.lua, or those named (a prefix will do), for agather and every peer that is installed, in
-- rounds: each measurement is a process of its own, and a round goes through all peers before the next begins, so that
-- what disturbs the machine disturbs all. Prints tables of medians, and of the ratios of each round, and writes
-- bench/results/latest.json, and bench/chart.svg when all rows of it were measured in full; --readme puts what it prints
-- into README.md too, and takes all rows and peers. Installs nothing.
local top = arg[0]:match("^(.*)/bench/[^/]*$") or arg[0]:match("^bench/") and "." or ".."
package.path = top .. "/?.lua;" .. package.path

local chart = require "bench.chart"
local json = require "bench.json"
local report = require "bench.report"
local shell = require "bench.shell"

local rounds_default = 5
-- A row that has taken so long goes on only with those that its bound compares.
local enough_seconds = 30
-- So many times as many rounds for what a bound compares, where that takes a second.
local more_rounds = 3
local server_seconds, quick_server_seconds = 2, 0.4
local units_to_time, quick_units, most_runs = 300000, 10000, 50 -- in one process: runs of a work, of so many units
local message_size = 1024
local requests_at_once = 100

local function usage(complaint)
  io.stderr:write(complaint, "\nusage: ./run bench/all.lua [--quick] [--rounds N] [--readme] [--peer NAME]... [ROW]...\nrows:")
  for _, row in ipairs(require "bench.rows") do io.stderr:write(" ", row.name) end
  io.stderr:write("\n")
  os.exit(2)
end

local function read_options(words)
  local options = { names = {}, peers = {}, rounds = rounds_default }
  local i = 1
  while words[i] do
    local word = words[i]
    if word == "--quick" then
      options.quick, options.rounds = true, 1
    elseif word == "--readme" then
      options.readme = true
    elseif word == "--rounds" or word == "--peer" then
      i = i + 1
      if not words[i] then usage(word .. " needs a value") end
      if word == "--peer" then
        options.peers[words[i]] = true
      else
        options.rounds = tonumber(words[i]) or usage("--rounds needs a number")
      end
    elseif word:find("^-") then
      usage("unknown option " .. word)
    else
      options.names[#options.names + 1] = word
    end
    i = i + 1
  end
  if options.readme and (options.quick or #options.names > 0 or next(options.peers)) then
    usage("--readme takes all rows and peers, in full")
  end
  return options
end

local function chosen_rows(options)
  local chosen, all = {}, require "bench.rows"
  for _, row in ipairs(all) do
    local wanted = #options.names == 0
    for _, name in ipairs(options.names) do
      if row.name:sub(1, #name) == name then wanted = true end
    end
    if wanted and (row.quick or not options.quick) then chosen[#chosen + 1] = row end
  end
  if #chosen == 0 then usage("no such row") end
  return chosen
end

-- Those that were asked for, with the version found, or marked as missing.
local function chosen_peers(options)
  local chosen, names = {}, {}
  for _, peer in ipairs(require "bench.peers"(top)) do
    names[peer.name] = true
    if next(options.peers) == nil or options.peers[peer.name] then
      local found, message = peer.version()
      peer.found, peer.missing = found, not found and (message or "not installed") or nil
      chosen[#chosen + 1] = peer
    end
  end
  for name in pairs(options.peers) do
    if not names[name] then usage("no such peer: " .. name) end
  end
  return chosen
end

local function make_tools()
  local directory = (os.getenv("AGATHER_BUILD_DIR") or top .. "/build") .. "/bench/"
  local tools = {}
  for _, name in ipairs { "measure", "load" } do
    tools[name] = assert(shell.make(directory .. name, { ("%s/bench/%s.c"):format(top, name) }, "cc -O2 -o"))
  end
  return tools
end

-- "key value" lines as a table; an empty one when the peer has no such thing.
local function read_figures(output)
  local figures = {}
  for key, value in output:gmatch("([%w_]+) ([%d.eE+-]+)") do figures[key] = tonumber(value) end
  return figures
end

local function run(command)
  local output, message = shell.capture("timeout -k 5 300 " .. command)
  if not output then return nil, message end
  return read_figures(output)
end

-- How one measurement of each kind of row is made: a table of figures, or nil and why not. A peer that takes no part in
-- such rows has no command for them.
local measurements = {}

function measurements.tasks(row, peer, count, options)
  local units = options.quick and quick_units or units_to_time
  local runs = row.runs or math.max(1, math.min(most_runs, units // count))
  return run(("%s %s %d %d"):format(peer.tasks, row.work, count, runs))
end

function measurements.process(row, peer, count, options)
  return run(("%s 1 %s %s %d 1"):format(options.tools.measure, peer.tasks, row.work, count))
end

function measurements.startup(_, peer, count, options)
  return run(("%s %d %s -- %s"):format(options.tools.measure, count, peer.startup[2], peer.startup[1]))
end

function measurements.server(row, peer, count, options)
  local seconds = options.quick and quick_server_seconds or server_seconds
  return run(("%s %s %d %g %d -- %s %s"):format(options.tools.load, row.work, count, seconds, message_size, peer.server,
    row.work))
end

-- A server is started for each measurement, so that it ends whatever happens to the client.
function measurements.client(_, peer, count)
  local url, stop = require("bench.web").start()
  if not url then return nil, stop end
  local figures, message = run(("%s %s %d %d"):format(peer.client, url, count, requests_at_once))
  stop()
  return figures, message
end

local command_of_kind = { tasks = "tasks", process = "tasks", startup = "startup", server = "server", client = "client" }

local function add_figures(result, figures, round)
  result.rounds = result.rounds or {}
  table.insert(result.rounds, round)
  for key, value in pairs(figures) do
    result[key] = result[key] or {}
    table.insert(result[key], value)
  end
end

-- The names of those that the bounds of a row compare.
local function compared(row)
  local names, any = { agather = true }, false
  for _, metric in ipairs(row.metrics) do
    local of = metric.bound and metric.bound.of
    for _, name in ipairs(type(of) == "table" and of or { of }) do
      names[name], any = true, true
    end
  end
  return any and names or {}
end

-- Measures a row in rounds; each round begins with the next peer. A failure is tried once more.
local function measure_row(row, peers, options)
  local results, partakers = {}, {}
  for _, peer in ipairs(peers) do
    if peer[command_of_kind[row.kind]] and not (row.except or {})[peer.name] then
      results[peer.name] = { missing = peer.missing }
      if not peer.missing then partakers[#partakers + 1] = peer end
    end
  end
  local count = options.quick and row.quick or row.count
  local started, only = os.time(), nil
  for round = 1, options.rounds * (row.is_short and not options.quick and more_rounds or 1) do
    for i = 1, #partakers do
      local peer = partakers[(i + round - 2) % #partakers + 1]
      local result = results[peer.name]
      if only and not only[peer.name] then goto next end
      options.show(("%s, round %d: %s"):format(row.name, round, peer.name))
      local figures, message
      for attempt = 1, 2 do
        if attempt == 2 then os.execute("sleep 3") end -- somebody may be building
        figures, message = measurements[row.kind](row, peer, count, options)
        if figures then break end
      end
      if figures then
        add_figures(result, figures, round)
      else
        result.failed = message
        options.show("")
        io.stderr:write(("%s: %s failed: %s\n"):format(row.name, peer.name, message))
      end
      ::next::
    end
    if round >= options.rounds or os.time() - started > enough_seconds then only = compared(row) end
  end
  return results
end

-- A line that replaces itself, where somebody sees it.
local function progress()
  if not os.execute("test -t 2") then return function() end end
  return function(text) io.stderr:write("\r\27[K", text) end
end

local function write_readme(text)
  local file = top .. "/README.md"
  local readme = assert(shell.read_file(file))
  local before, after = readme:match("^(.-<!%-%- what bench/all.lua prints %-%->\n).-(<!%-%- its end %-%->.*)$")
  assert(before, "README.md has no place for the table")
  shell.write_file(file, before .. "\n" .. text .. "\n\n" .. after)
end

local function main()
  local options = read_options(arg)
  local rows, peers = chosen_rows(options), chosen_peers(options)
  options.tools, options.show = make_tools(), progress()
  local machine = require "bench.machine"(top)
  local results = {}
  for _, row in ipairs(rows) do results[row.name] = measure_row(row, peers, options) end
  options.show("")

  local text = report.text {
    machine = machine, peers = peers, rows = rows, results = results, rounds = options.rounds, quick = options.quick,
  }
  print(text)
  if options.readme then write_readme(text) end
  local versions = {}
  for _, peer in ipairs(peers) do versions[peer.name] = peer.found or "missing: " .. peer.missing end

  assert(shell.capture("mkdir -p " .. shell.quote(top .. "/bench/results")))
  shell.write_file(top .. "/bench/results/latest.json", json.encode {
    machine = machine, versions = versions, quick = options.quick or false, rounds = options.rounds, results = results,
  })
  if not options.quick then
    local drawn = chart.draw(results, peers, machine)
    if drawn then shell.write_file(top .. "/bench/chart.svg", drawn) end
  end
end

main()
