-- agather: client.lua URL COUNT LIMIT. One client, so many requests under way, bodies read as text.
local agather = require "agather"

agather.run(function(url, count, limit)
  local client <close> = agather.http.Client { limits = { max_connections = limit } }
  local function fetch() return #client:get(url):raise_for_status():text() end

  local function run(number)
    local place = 0
    local function numbers()
      place = place + 1
      return place <= number and place or nil
    end
    local lengths = agather.map(fetch, numbers, { limit = limit })
    for i = 1, number do assert(lengths[i] > 0) end
  end

  run(count // 10) -- connections stand, and code is warm where that matters
  local loop = agather.get_running_loop()
  local started, used = loop:time(), os.clock()
  run(count)
  print(("requests_per_cpu_second %.1f"):format(count / (os.clock() - used)))
  print(("requests_per_second %.1f"):format(count / (loop:time() - started)))
end, arg[1], math.tointeger(tonumber(arg[2])), math.tointeger(tonumber(arg[3])))
