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
  create_task_other_work = "other work started\nTask 1 running\nother work done\nresult 1\n",
  api_tasks = "Fetching from endpoint1...\nFetching from endpoint2...\nFetching from endpoint3...\n"
    .. "Finished fetching from endpoint1\nendpoint1\tsuccess\n"
    .. "Finished fetching from endpoint2\nendpoint2\tsuccess\n"
    .. "Finished fetching from endpoint3\nendpoint3\tsuccess\n",
  gather_two_tasks = "Task 1 running\nTask 2 running\nresult 1 result 2\n",
  gather_api = "Fetching from users...\nFetching from products...\nFetching from orders...\n"
    .. "Finished fetching from users\nFinished fetching from orders\nFinished fetching from products\n"
    .. "\nAll tasks ran concurrently: true\n--- Results ---\n"
    .. "users\tsuccess\nproducts\tsuccess\norders\tsuccess\n",
  gather_api_errors = "Running tasks with potential errors...\n"
    .. "Fetching from users...\nFetching from products...\nFetching from orders...\n"
    .. "\n--- All tasks complete ---\nA task succeeded: users success\n"
    .. "A task failed: Failed to fetch from products\nA task succeeded: orders success\n",
  gather_one = "main starting\ntask executing\nmain done\n",
  gather_many = "main starting\n>task 0 executing\n>task 1 executing\n>task 2 executing\nmain done\n",
  gather_unpacked_list = "main starting\n"
    .. ">task 0 executing\n>task 1 executing\n>task 2 executing\n>task 3 executing\n>task 4 executing\n"
    .. ">task 5 executing\n>task 6 executing\n>task 7 executing\n>task 8 executing\n>task 9 executing\n"
    .. "main done\n",
  gather_return_values = "main starting\n"
    .. ">task 0 executing\n>task 1 executing\n>task 2 executing\n>task 3 executing\n>task 4 executing\n"
    .. ">task 5 executing\n>task 6 executing\n>task 7 executing\n>task 8 executing\n>task 9 executing\n"
    .. "0 10 20 30 40 50 60 70 80 90\nmain done\n",
  gather_return_exceptions = "main starting\n"
    .. ">task 0 executing\n>task 1 executing\n>task 2 executing\n>task 3 executing\n>task 4 executing\n"
    .. ">task 5 executing\n>task 6 executing\n>task 7 executing\n>task 8 executing\n>task 9 executing\n"
    .. "Something bad happened\tnil\tnil\tnil\tnil\tnil\tnil\tnil\tnil\tnil\nmain done\n",
  tls_client = "TLSv1.3\tchat\tCN=localhost\nyou said hello\n"
    .. "false\tDEPTH_ZERO_SELF_SIGNED_CERT\tself-signed certificate: CN=localhost\n",
  http_posts = "Post 1: title of post 1\nPost 2: title of post 2\nPost 3: title of post 3\n",
  http_posts_list = "title of post 1\ntitle of post 2\ntitle of post 3\ntitle of post 4\ntitle of post 5\n",
  http_posts_errors = "Post 1: title of post 1\nPost 2 failed: No data for post 99999\nPost 3: title of post 3\n",
  gather_cancelled_child_raises = "main starting\n>task 0 executing\n>task 1 executing\nfalse\tCancelledError\n",
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

  it("crawl finds each page once, tries again where the site stumbles, and counts", function()
    local lines = {}
    for line in output("crawl"):gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.equal("page  status   bytes  tries", lines[1])
    assert.equal("/        200      60      1", lines[2])
    assert.equal("/5       200      64      2", lines[7])
    assert.equal("/7       404       0      1", lines[9])
    assert.equal("34 pages, 1 failed, 1252 bytes, 40 requests", lines[#lines])
    assert.equal(36, #lines)
  end)
end)
