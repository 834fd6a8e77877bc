-- The words of all files under a folder, most frequent first: index_files.lua [FOLDER]
-- The loop walks the folders; workers read the files and count, one thread for each processor.
local agather = require "agather"
local fs, worker = agather.fs, agather.worker

-- Runs in a worker, a state of its own: it has its arguments, Lua's libraries, and nothing of this file.
local function count_words(path)
  local file, err = io.open(path, "rb")
  if not file then return { failure = err } end
  local counts = {}
  for word in file:read("a"):lower():gmatch("%a+") do counts[word] = (counts[word] or 0) + 1 end
  file:close()
  return { counts = counts }
end

local function add_files(folder, files)
  for _, entry in ipairs(fs.scandir(folder)) do
    local path = folder .. "/" .. entry.name
    if entry.type == "file" then
      files[#files + 1] = path
    elseif entry.type == "directory" then
      add_files(path, files)
    end
  end
  return files
end

local function index(files)
  local words, total, failed = {}, 0, 0
  for place, found in ipairs(worker.map(count_words, files)) do
    if found.failure then
      failed = failed + 1
      io.stderr:write("cannot index ", found.failure, "\n")
    end
    for word, count in pairs(found.counts or {}) do
      local entry = words[word] or { word = word, count = 0, files = {} }
      entry.count = entry.count + count
      table.insert(entry.files, files[place])
      words[word] = entry
      total = total + count
    end
  end
  return words, total, failed
end

local function by_count(words)
  local list = {}
  for _, entry in pairs(words) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.word < b.word
  end)
  return list
end

agather.run(function()
  local files = add_files(arg[1] or ".", {})
  local words, total, failed = index(files)
  print(("%d files, %d words, %d not readable"):format(#files, total, failed))
  for place, entry in ipairs(by_count(words)) do
    if place > 10 then break end
    print(("%6d  %-16s in %d files"):format(entry.count, entry.word, #entry.files))
  end
end)
