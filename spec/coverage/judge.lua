-- What the specs do not reach: judge.lua GCOVR_JSON DIRECTORY (see .ci/coverage).
-- Prints the share of lines that ran, of src by folder and of lua/agather, and the lines of src/core that did not. Each
-- of those must stand in unreached.lua with its reason, and nothing else may. Exit status 1: one does not, or less than
-- 95 % of src/core ran.
local top = arg[0]:match("^(.*)/spec/coverage/") or "."
package.path = top .. "/?.lua;" .. package.path
local json = require "agather.json"
local reasons = require "spec.coverage.unreached"

local function read(name)
  local file = assert(io.open(name, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function lines_of(name)
  local lines = {}
  for line in io.lines(top .. "/" .. name) do lines[#lines + 1] = line:match("^%s*(.-)%s*$") end
  return lines
end

local function percent(ran, all) return ("%5.1f %% of %d lines"):format(all > 0 and ran / all * 100 or 0, all) end

-- Folder or file -> { ran =, all =, missed = { line numbers } }.
local function count(counts, name, line, ran)
  local of = counts[name] or { ran = 0, all = 0, missed = {} }
  counts[name] = of
  of.all = of.all + 1
  if ran then of.ran = of.ran + 1 else of.missed[#of.missed + 1] = line end
end

local function count_c(report)
  local folders, files = {}, {}
  for _, file in ipairs(report.files) do
    for _, line in ipairs(file.lines) do
      if not line["gcovr/noncode"] then
        count(folders, file.file:match("^src/[^/]+") or file.file, line.line_number, line.count > 0)
        count(files, file.file, line.line_number, line.count > 0)
      end
    end
  end
  return folders, files
end

-- luac lists the lines that have code. What is there for editors alone never runs.
local function count_lua(directory)
  local ran, files = {}, {}
  for line in assert(io.popen(("cat '%s'/*"):format(directory))):lines() do ran[line] = true end
  for name in assert(io.popen(("cd '%s' && find lua -name '*.lua'"):format(top))):lines() do
    local seen = {}
    if name:find("meta%.lua$") then goto next end
    for listed in assert(io.popen(("luac5.4 -p -l -l '%s/%s'"):format(top, name))):lines() do
      local line, operation = listed:match("^%s+%d+%s+%[(%d+)%]%s+(%S+)")
      if line and operation ~= "VARARGPREP" and operation ~= "RETURN" and not seen[line] then
        seen[line] = true
        count(files, name, tonumber(line), ran[name .. ":" .. line] or false)
      end
    end
    ::next::
  end
  return files
end

local function sorted(counts)
  local names = {}
  for name in pairs(counts) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- The numbers of the lines that a reason stands for: of each piece of the file that reads like its text, however it is
-- indented. nil: there is no such piece.
local function find(text, piece)
  local wanted, found = {}, nil
  for line in piece:gmatch("[^\n]+") do wanted[#wanted + 1] = line:match("^%s*(.-)%s*$") end
  for first = 1, #text - #wanted + 1 do
    local same = true
    for i = 1, #wanted do same = same and text[first + i - 1] == wanted[i] end
    if same then
      found = found or {}
      for i = 1, #wanted do found[first + i - 1] = true end
    end
  end
  return found
end

-- Whether each line of the core that did not run has its reason, and each reason its lines.
local function explained(files)
  local ok = true
  for _, name in ipairs(sorted(files)) do
    if name:find("^src/core/") then
      local text, given = lines_of(name), {}
      for _, reason in ipairs(reasons[name] or {}) do
        for _, piece in ipairs(reason) do
          local found = find(text, piece)
          for line in pairs(found or {}) do given[line] = true end
          if not found then
            print(("%s has no longer: %s"):format(name, piece))
            ok = false
          end
        end
      end
      for _, number in ipairs(files[name].missed) do
        if not given[number] then
          print(("%s:%d did not run: %s"):format(name, number, text[number]))
          ok = false
        end
      end
    end
  end
  return ok
end

local folders, files = count_c(json.decode(read(arg[1])))
for _, name in ipairs(sorted(folders)) do print(("%-28s %s"):format(name, percent(folders[name].ran, folders[name].all))) end
local lua, ran, all = count_lua(arg[2]), 0, 0
for _, name in ipairs(sorted(lua)) do
  ran, all = ran + lua[name].ran, all + lua[name].all
  print(("  %-26s %s"):format(name:gsub("^lua/", ""), percent(lua[name].ran, lua[name].all)) ..
    (#lua[name].missed > 0 and ": " .. table.concat(lua[name].missed, " ") or ""))
end
print(("%-28s %s"):format("lua/agather", percent(ran, all)))
local core = folders["src/core"]
os.exit(explained(files) and core and core.ran > 0.95 * core.all)
