-- Bytes that choose: what fuzz targets make decisions of. At the end of the bytes every choice is the first one, so that
-- each input is a whole program and a shorter one is a simpler one.
local bytes = {}
bytes.__index = bytes

---@param text string
function bytes.new(text) return setmetatable({ text = text, at = 1 }, bytes) end

--- The next byte, or 0 at the end.
function bytes:byte()
  local byte = self.text:byte(self.at) or 0
  self.at = self.at + 1
  return byte
end

--- A number from 0 to most, which is less than 2^24.
function bytes:upto(most)
  local number = self:byte()
  if most > 255 then number = number << 8 | self:byte() end
  if most > 65535 then number = number << 8 | self:byte() end
  return number % (most + 1)
end

--- One of a list.
function bytes:of(list) return list[self:upto(#list - 1) + 1] end

--- True with one in so many.
function bytes:one_in(number) return self:byte() % number == number - 1 end

--- Some of the bytes as they are: at most [most].
function bytes:take(most)
  local text = self.text:sub(self.at, self.at + most - 1)
  self.at = self.at + #text
  return text
end

--- What is left of them.
function bytes:rest() return self:take(#self.text) end

--- Whether there are none left.
function bytes:over() return self.at > #self.text end

return bytes
