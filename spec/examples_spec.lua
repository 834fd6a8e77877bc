-- Runs every example and compares what it prints, order included.
local expected = {
  create_task = "done 1\ndone 2\n",
  gather_squares = "0 1 4 9 16 25 36 49 64 81\n",
  gather_errors_as_values = "1\tboom\ttrue\n",
  gather_nested = "main starting\n>task 0 executing\n>task 1 executing\n>task 2 executing\n>task 3 executing\n>task 4 executing\n>task 5 executing\nmain done\n",
  gather_mixed = "main starting\n>task 1 executing\n>task 3 executing\n>task 0 executing\n>task 2 executing\n>task 4 executing\nmain done\n",
  gather_failure = "main starting\n>task 0 executing\n>task 1 executing\n>task 2 executing\n>task 3 executing\n>task 4 executing\n>task 5 executing\n>task 6 executing\n>task 7 executing\n>task 8 executing\n>task 9 executing\nfalse\tSomething bad happened\n",
  gather_cancelled_child = "main starting\n>task 0 executing\n>task 1 executing\nCancelledError\tnil\nmain done\n",
  gather_cancel_group = "main starting\n>task 0 executing\nfalse\tCancelledError\n",
  gather_list_by_mistake = "main starting\nfalse\tuse agather.gather_list\n",
  gather_without_await = "main starting\nmain done\n>task 0 executing\n>task 1 executing\n>task 2 executing\n>task 3 executing\n>task 4 executing\n>task 5 executing\n>task 6 executing\n>task 7 executing\n>task 8 executing\n>task 9 executing\n",
}

local function output(name)
  local pipe = assert(io.popen("lua5.4 examples/" .. name .. ".lua 2>/dev/null"))
  local text = pipe:read("a")
  pipe:close()
  return text
end

describe("example", function()
  for name, text in pairs(expected) do
    it(name .. " prints what it promises", function() assert.equal(text, output(name)) end)
  end

  it("fetch_posts prints posts and the failure in their places", function()
    local lines = {}
    for line in output("fetch_posts"):gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.equal(6, #lines)
    assert.equal("Post 1: title of post 1", lines[1])
    assert.equal("Post 6 failed: post 99999: status 404", lines[6])
  end)
end)
