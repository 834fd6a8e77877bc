-- Makes a program whose traces differ as small as it gets, and prints programs and traces readably.
local compare = require "spec.differential.compare"
local generator = require "spec.differential.generator"
local literal = require "spec.differential.literal"

local shrink = {}

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = copy(item) end
  return result
end

-- All lists of statements of a program, outer before inner, always in the same order.
local function blocks_of(program)
  local blocks = {}
  local function visit(block)
    blocks[#blocks + 1] = block
    for _, statement in ipairs(block) do
      for _, field in ipairs(generator.blocks) do
        if statement[field] then visit(statement[field]) end
      end
    end
  end
  visit(program.main)
  for _, main in ipairs(program.mains or {}) do visit(main) end
  for _, body in ipairs(program.bodies) do visit(body) end
  return blocks
end

-- Calls edit(block) on a copy of the program, for the block with the given number.
local function edited(program, number, edit)
  local result = copy(program)
  edit(blocks_of(result)[number])
  return result
end

-- Programs that are a little smaller: with some statements left out, a statement replaced by what is in it, a list of
-- awaitables made shorter, an option left out.
local function smaller(program)
  local candidates = {}
  local function add(number, edit) candidates[#candidates + 1] = edited(program, number, edit) end
  for number, block in ipairs(blocks_of(program)) do
    local size = #block
    while size >= 1 do
      for first = 1, #block - size + 1, size do
        add(number, function(list)
          for _ = 1, size do table.remove(list, first) end
        end)
      end
      size = size // 2
    end
    for place, statement in ipairs(block) do
      for _, field in ipairs(generator.blocks) do
        if statement[field] and field ~= "actions" then
          add(number, function(list)
            local inner = table.remove(list, place)[field]
            table.move(inner, 1, #inner, place, table.move(list, place, #list, place + #inner) and list)
          end)
        end
      end
      for index = #(statement.items or {}), 1, -1 do
        add(number, function(list)
          local items = list[place].items
          table.remove(items, index)
          for other = #items, 1, -1 do
            local same = items[other]
            if same.kind == "same" then
              if same.index == index then table.remove(items, other) end
              if same.index > index then same.index = same.index - 1 end
            end
          end
        end)
      end
      for _, option in ipairs { "rethrow", "errors_only", "message", "timeout", "limit", "method", "at", "value",
        "name", "context", "eager", "bare", "list", "wrap" } do
        local needed = option == "value" and (statement.op:find("^set_") or statement.op:find("^variable")
          or statement.op:find("^queue") or statement.op == "yield" or statement.op == "return")
          or option == "name" and statement.op == "set_name"
        if statement[option] and not needed then add(number, function(list) list[place][option] = nil end) end
      end
      if (statement.delay or 0) > 1 / 8 then add(number, function(list) list[place].delay = 1 / 8 end) end
    end
  end
  -- What no statement needs any more.
  local text = literal(program.main) .. literal(program.bodies) .. literal(program.mains or {})
  local tidy = copy(program)
  if tidy.mains and #tidy.mains[#tidy.mains] == 0 then table.remove(tidy.mains) end
  if tidy.mains and #tidy.mains == 0 then tidy.mains = nil end
  while #tidy.bodies > 1 and not text:find(("body = %d[ ,]"):format(#tidy.bodies)) do table.remove(tidy.bodies) end
  if not text:find("\"queue_") then tidy.objects.queues = {} end
  if not text:find("kind = \"future\", slot = 2") then tidy.objects.futures = 1 end
  if literal(tidy) ~= literal(program) then candidates[#candidates + 1] = tidy end
  return candidates
end

-- Whether agather's side ended early, and how.
local function fatal(difference) return difference.agather[1]:match("^agather %a+") end

-- The first candidate that differs, in the same way as [like] where that is given.
local function first_that_differs(candidates, like)
  local size = like and fatal(like) and 4 or 50 -- what follows a crash needs another process
  for first = 1, #candidates, size do
    local some = table.move(candidates, first, math.min(first + size - 1, #candidates), 1, {})
    for _, difference in ipairs((compare.differences(some))) do
      if not like or fatal(difference) == fatal(like) then return difference end
    end
  end
end

--- Makes a program smaller as long as its traces differ. A crash stays a crash.
---@param program table
---@return table? difference of the smallest, as compare.differences gives
function shrink.shrink(program)
  local best
  local found = first_that_differs { program }
  while found do
    best = found
    found = first_that_differs(smaller(best.program), best)
  end
  return best
end

-- ---- printing ----

local function statements_text(statements, indent)
  local lines = {}
  for _, statement in ipairs(statements) do
    local plain, inner = {}, {}
    for name, value in pairs(statement) do plain[name] = value end
    for _, field in ipairs(generator.blocks) do
      if statement[field] then
        plain[field] = nil
        local text = statements_text(statement[field], indent .. "  ")
        local form = text == "" and ", %s = {}" or ", %s = {\n%s%s}"
        inner[#inner + 1] = form:format(field, text, indent)
      end
    end
    lines[#lines + 1] = indent .. literal(plain):sub(1, -3) .. table.concat(inner) .. " },\n"
  end
  return table.concat(lines)
end

--- The program as a Lua table that failed_programs.lua may hold.
---@return string
function shrink.program_text(program)
  local lines = { "{\n" }
  if program.seed then lines[#lines + 1] = ("  seed = %d,\n"):format(program.seed) end
  lines[#lines + 1] = ("  objects = %s,\n"):format(literal(program.objects))
  lines[#lines + 1] = ("  main = {\n%s  },\n"):format(statements_text(program.main, "    "))
  if program.mains then
    lines[#lines + 1] = "  mains = {\n"
    for _, main in ipairs(program.mains) do
      lines[#lines + 1] = ("    {\n%s    },\n"):format(statements_text(main, "      "))
    end
    lines[#lines + 1] = "  },\n"
  end
  lines[#lines + 1] = "  bodies = {\n"
  for _, body in ipairs(program.bodies) do
    local text = statements_text(body, "      ")
    lines[#lines + 1] = text == "" and "    {},\n" or ("    {\n%s    },\n"):format(text)
  end
  lines[#lines + 1] = "  },\n},"
  return table.concat(lines)
end

--- Both traces side by side; lines that differ are marked.
---@return string
function shrink.traces_text(difference)
  local width = #"agather"
  for _, line in ipairs(difference.agather) do width = math.max(width, #line) end
  local function row(mark, left, right) return ("%s %s%s | %s"):format(mark, left, (" "):rep(width - #left), right) end
  local lines = { row(" ", "agather", "asyncio") }
  for place = 1, math.max(#difference.agather, #difference.asyncio) do
    local left, right = difference.agather[place] or "", difference.asyncio[place] or ""
    lines[#lines + 1] = row(left == right and " " or "*", left, right)
  end
  return table.concat(lines, "\n")
end

--- A whole report on a program that differs.
---@return string
function shrink.report(difference)
  return shrink.program_text(difference.program) .. "\n" .. shrink.traces_text(difference)
end

return shrink
