std = "lua54"
max_line_length = 140
files["spec"] = { std = "+busted", ignore = { "512" } }
files["lua/agather/meta.lua"] = { ignore = { "211", "212", "241" } }
files["spec/http/download_spec.lua"] = { ignore = { "122" } } -- stands in for io.stderr
files["lua/agather/net_meta.lua"] = { ignore = { "211", "212", "241" } }
files["spec/lua/progress_spec.lua"] = { ignore = { "122" } } -- stands in for io.stderr
files["spec/examples_spec.lua"] = { max_line_length = false } -- what examples print
exclude_files = { "build*" }
