-- The list of mutants: small bugs, each with the spec that must go red when the code has it. A mutant is a table:
--   name   what .ci/mutants and docs/reliability.md call it
--   bug    what is wrong then, in a few words
--   file   the file that is changed
--   text   what is replaced: it stands there exactly once
--   with   what stands there instead
--   spec   the spec that must go red
--   it     words of the sentences of that spec that are run; nil: all of them
--   preset the build that sees it: "debug" if nothing is said, or "asan"
local mutants = {}

local layers = { "core", "uv", "tls", "http", "lua" }

--- Adds a mutant's text to what went wrong with it.
local function check(mutant, layer)
  for _, field in ipairs { "name", "bug", "file", "text", "with", "spec" } do
    if type(mutant[field]) ~= "string" then
      error(("spec/mutants/%s.lua: %s has no '%s'"):format(layer, mutant.name or "a mutant", field), 0)
    end
  end
end

for _, layer in ipairs(layers) do
  for _, mutant in ipairs(require("spec.mutants." .. layer)) do
    check(mutant, layer)
    mutant.layer = layer
    mutants[#mutants + 1] = mutant
  end
end

return mutants
