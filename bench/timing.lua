-- What the peers in Lua share: how a piece of work is timed, and how much memory the process holds.
local timing = {}

local function median(times)
  table.sort(times)
  local middle = (#times + 1) // 2
  return #times % 2 == 1 and times[middle] or (times[middle] + times[middle + 1]) / 2
end

local runs -- how many times the runner wants a work to be timed

--- Runs work() once to warm up, then so many times more, and prints the median of ns per unit. The clock is the
--- processor time of the process, so that others on the machine matter less; work that waits brings a clock of its own.
--- When work() returns a number, that is its time: the part of it that counts.
function timing.report(count, work, clock)
  clock = clock or os.clock
  work()
  local times = {}
  for i = 1, runs do
    local started = clock()
    local counted = work()
    times[i] = counted or clock() - started
  end
  print(("nanoseconds_per_unit %.2f"):format(median(times) / count * 1e9))
end

--- Bytes of memory that the process holds, after two full collections.
function timing.resident()
  collectgarbage()
  collectgarbage()
  for line in io.lines("/proc/self/status") do
    local kibibytes = line:match("^VmRSS:%s*(%d+) kB")
    if kibibytes then return tonumber(kibibytes) * 1024 end
  end
end

function timing.report_memory(count, before, after)
  print(("bytes_per_task %.1f"):format((after - before) / count))
end

--- Runs the work that the command line names: WORK COUNT RUNS. A peer that has no such thing prints "none".
function timing.main(works)
  local work = works[arg[1]]
  runs = tonumber(arg[3])
  if not work then
    print("none")
  else
    work(tonumber(arg[2]))
  end
end

return timing
