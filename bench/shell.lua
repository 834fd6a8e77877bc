-- Running other programs from the runner.
local shell = {}

function shell.quote(word)
  if word:find("^[%w_./=:,+-]+$") then return word end
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- What the command prints, without the last newline; nil and its complaints when it fails or is not there.
function shell.capture(command)
  local complaints = os.tmpname()
  local pipe <close> = io.popen(("{ %s; } 2>%s"):format(command, complaints))
  local output = pipe:read("a")
  local ok, how, status = pipe:close()
  local file <close> = io.open(complaints)
  local complaint = file and file:read("a") or ""
  os.remove(complaints)
  if ok then return (output:gsub("\n$", "")) end
  return nil, (("%s %d: %s"):format(how, status, complaint:sub(-300)):gsub("%s+$", ""))
end

function shell.read_file(path)
  local file <close> = io.open(path)
  return file and file:read("a")
end

function shell.write_file(path, text)
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
end

--- Runs the command that makes a program, unless the program is newer than its sources. Returns the program's path, or
--- nil and what the compiler says.
function shell.make(program, sources, command)
  local words = {}
  for i, source in ipairs(sources) do words[i] = shell.quote(source) end
  local newer = ("test -x %s && test -z \"$(find %s -newer %s)\""):format(
    shell.quote(program), table.concat(words, " "), shell.quote(program))
  if shell.capture(newer) then return program end
  local ok, message = shell.capture(("mkdir -p %s && %s %s %s"):format(
    shell.quote(program:match("^(.*)/")), command, shell.quote(program), table.concat(words, " ")))
  if not ok then return nil, message end
  return program
end

return shell
