-- What the process can open runs out (RLIMIT_NOFILE): see descriptors.lua.
local certificates = require "spec.support.certificates"
local host = require "spec.support.host"
local system = require "spec.support.system"

describe("a process that may open few descriptors", function()
  local made, folder, environment

  setup(function()
    made, folder = certificates.make(), system.folder()
    system.spill(folder:at("environment"), ("export FILES='%s' CA='%s' CERT='%s' KEY='%s'\n"):format(folder.path, made.ca_pem,
      made.server_pem, made.server_key))
    environment = ". " .. folder:at("environment") .. ";"
  end)

  teardown(function()
    made:remove()
    folder:__close()
  end)

  it("gets EMFILE or what it wants, loses none, and goes on when it may open more", function()
    assert.equal("done\n", system.output(environment .. "timeout 60 lua5.4 spec/uv/descriptors.lua 2>&1"))
  end)

  it("gets EMFILE or what it wants at its first use, and never dies of it", function()
    -- all under AGATHER_TORTURE=full; less where each process takes long to begin
    local stride = os.getenv("AGATHER_TORTURE") == "full" and 1 or host.sanitized and 6 or 4
    local script = environment .. ("stride=%d\n"):format(stride) .. [[
      place=0
      for name in tcp unix tls http udp dns children workers files watch signal sleep; do
        place=$((place + 1)) last=0
        for limit in $(seq $((4 + place % stride)) $stride 24); do
          result=$(prlimit --nofile=$limit:1024 timeout 20 lua5.4 spec/uv/descriptors.lua $name 2>&1)
          case $? in 0) ;; *) echo "$name $limit: ended with status $?" ;; esac
          case $result in
            ok) ;;
            EMFILE | "cannot be loaded") last=$limit ;;
            *) echo "$name $limit: $result" ;;
          esac
        done
        [ $last -gt 3 ] && [ $last -lt 21 ] || echo "$name: does not work with $last"
      done
      echo done]]
    assert.equal("done\n", system.output(script))
  end)
end)
