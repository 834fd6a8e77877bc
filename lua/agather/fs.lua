-- agather.fs: files, off the loop's thread. The operations are in C (src/uv/fs.c and its neighbours), each a job for
-- libuv's pool of threads; here are their arguments.
-- Each raises OSError with .code, .operation ("fs.open") and .address (the path). A cancelled task is free at once;
-- what the system had begun by then it ends, and the outcome is dropped.
local check = require "agather.check"
local uv = require "agather.uv"

local fs = {}

-- An integer, or the digits of an octal number as in chmod; nil where there is none.
local function check_mode(value, position, name)
  if value == nil then return nil end
  local mode = value
  if type(value) == "string" and value:find("^[0-7]+$") then mode = tonumber(value, 8) end
  if math.type(mode) ~= "integer" or mode < 0 or mode > 4095 then
    check.fail(position, name, ("option 'mode' must be an integer from 0 to 4095 or octal digits such as \"644\", got %s")
      :format(type(value) == "string" and '"' .. value .. '"' or tostring(value)))
  end
  return mode
end

local function check_string(value, position, name)
  if type(value) ~= "string" then
    check.fail(position, name, "string expected, got " .. check.type_name(value))
  end
end

local function check_path(value, position, name)
  check_string(value, position, name)
  if value:find("\0", 1, true) then check.fail(position, name, "path contains a zero byte") end
end

---@class agather.Stat
---@field type "file"|"directory"|"link"|"fifo"|"socket"|"char"|"block"|"unknown"
---@field size integer bytes
---@field mode integer permission bits
---@field uid integer
---@field gid integer
---@field dev integer
---@field ino integer
---@field nlink integer
---@field mtime number seconds since 1970, as the two below
---@field atime number
---@field ctime number

--- What is at path; of a symbolic link, what it points to.
---@async
---@param path string
---@return agather.Stat
function fs.stat(path)
  check_path(path, 1, "stat")
  return uv.fs_stat(path)
end

--- As stat, but a symbolic link is told as what it is.
---@async
---@param path string
---@return agather.Stat
function fs.lstat(path)
  check_path(path, 1, "lstat")
  return uv.fs_lstat(path)
end

--- Whether anything is at path; of a symbolic link, whether anything is where it points. Raises where that cannot be
--- told, such as in a folder that may not be searched.
---@async
---@param path string
---@return boolean
function fs.exists(path)
  check_path(path, 1, "exists")
  return uv.fs_exists(path)
end

--- What is in a folder, in the order of the names' bytes; without "." and "..".
---@async
---@param path string
---@return { name: string, type: string }[]
function fs.scandir(path)
  check_path(path, 1, "scandir")
  return uv.fs_scandir(path)
end

--- Makes a folder. With parents, also those above it, and one that is there already is no error.
---@async
---@param path string
---@param options? { parents?: boolean, mode?: integer|string } mode of the last folder, less the umask: "777"
function fs.mkdir(path, options)
  check_path(path, 1, "mkdir")
  options = check.options(options, { parents = true, mode = true }, 2, "mkdir")
  uv.fs_mkdir(path, check_mode(options.mode, 2, "mkdir") or 511, options.parents)
end

--- Moves a file or folder within its file system; replaces a file.
---@async
---@param from string
---@param to string
function fs.rename(from, to)
  check_path(from, 1, "rename")
  check_path(to, 2, "rename")
  uv.fs_rename(from, to)
end

--- Copies the bytes and permission bits of a file; replaces a file, unless exclusive.
---@async
---@param from string
---@param to string
---@param options? { exclusive?: boolean }
function fs.copy_file(from, to, options)
  check_path(from, 1, "copy_file")
  check_path(to, 2, "copy_file")
  options = check.options(options, { exclusive = true }, 3, "copy_file")
  uv.fs_copy_file(from, to, options.exclusive)
end

--- Removes a file or an empty folder; with recursive, a folder and all that is in it. Links are removed, not followed.
---@async
---@param path string
---@param options? { recursive?: boolean }
function fs.remove(path, options)
  check_path(path, 1, "remove")
  options = check.options(options, { recursive = true }, 2, "remove")
  uv.fs_remove(path, options.recursive)
end

---@class agather.File
---@field read fun(self, format?: string|integer): string? "l" (the default), "L", "a", or a number of bytes; nil at the end
---@field read_exactly fun(self, count: integer): string or IncompleteReadError
---@field read_until fun(self, separator: string): string up to and with it, or IncompleteReadError
---@field lines fun(self, format?: string|integer): fun(): string?
---@field write fun(self, ...: string|number): agather.File gathers what is written; the disk may be full only at flush
---@field seek fun(self, whence?: "set"|"cur"|"end", offset?: integer): integer
---@field flush fun(self): agather.File gives to the system what was gathered
---@field sync fun(self): agather.File and waits until it is on the disk
---@field close fun(self) flushes first; again is harmless; also <close>

--- Opens a file. Modes as io.open's: "r" (the default), "w", "a", "r+", "w+", "a+", with or without "b". What a
--- cancelled write was given is written all the same. One task at a time may use it. For files: of a pipe or terminal,
--- reading does not wait for what is not there yet (EAGAIN).
---@async
---@param path string
---@param mode? string
---@param options? { mode?: integer|string } permission bits of a new file, less the umask
---@return agather.File
function fs.open(path, mode, options)
  check_path(path, 1, "open")
  if mode ~= nil and (type(mode) ~= "string" or not mode:find("^[rwa]%+?b*$")) then
    check.fail(2, "open", "invalid mode")
  end
  options = check.options(options, { mode = true }, 3, "open")
  local opening <close> = uv.fs_open(path, mode or "r", check_mode(options.mode, 3, "open") or 438)
  return opening:run()
end

--- All bytes of a file.
---@async
---@param path string
---@return string
function fs.read_file(path)
  check_path(path, 1, "read_file")
  return uv.fs_read_file(path)
end

--- Makes data the content of a file. With atomic, whoever reads it sees the old content or the new, also after a crash:
--- the data goes to a temporary file in the same folder, to the disk, and then under the name (a symbolic link there is
--- replaced, the permission bits stay). Without, what fails or is cancelled midway leaves a part.
---@async
---@param path string
---@param data string
---@param options? { atomic?: boolean, mode?: integer|string }
function fs.write_file(path, data, options)
  check_path(path, 1, "write_file")
  check_string(data, 2, "write_file")
  options = check.options(options, { atomic = true, mode = true }, 3, "write_file")
  uv.fs_write_file(path, data, check_mode(options.mode, 3, "write_file"), options.atomic)
end

---@class agather.Watcher
---@field wait fun(self): string, string? "change" or "rename" (also: made, removed) and the name; "overflow": some were lost
---@field events fun(self): function, any iterates over what wait returns
---@field close fun(self) again is harmless; also <close>

--- Watches a file, or what is directly in a folder, from the call on: for kind, name in fs.watch(path):events() do.
--- Up to 1024 events are kept for the task that takes them.
---@param path string
---@return agather.Watcher
function fs.watch(path)
  check_path(path, 1, "watch")
  return uv.fs_watch(path)
end

return fs
