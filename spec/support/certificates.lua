-- Keys and certificates for the specs of TLS, made by the openssl command in a folder of their own: an authority, and
-- what it signed for a.example, *.b.example, 127.0.0.1 and ::1, for c.example and *.d.example; certificates that are wrong in one way each.
local certificates = {}

local script = [[
set -e
unset LD_PRELOAD # of the sanitizers
cd "$1"
exec 2>log
cat >ca.cnf <<END
[ca]
default_ca = authority
[authority]
dir = .
database = index.txt
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = anything
copy_extensions = copy
unique_subject = no
[anything]
commonName = supplied
END
touch index.txt
echo 01 >serial
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
key ca
openssl req -x509 -new -key ca.key -out ca.pem -days 30 -subj "/CN=Spec CA" -addext keyUsage=critical,keyCertSign,cRLSign
signed() { # signed NAME CN EXTENSION [openssl ca's arguments]
  local name=$1 cn=$2 extension=$3
  shift 3
  key "$name"
  openssl req -new -key "$name.key" -out "$name.csr" -subj "/CN=$cn" ${extension:+-addext "$extension"}
  openssl ca -batch -config ca.cnf -notext -in "$name.csr" -out "$name.pem" "$@"
}
signed server a.example "subjectAltName=DNS:a.example,DNS:*.b.example,IP:127.0.0.1,IP:::1" -days 30
signed expired old.example "subjectAltName=DNS:a.example" -startdate 20200101000000Z -enddate 20200201000000Z
signed early new.example "subjectAltName=DNS:a.example" -startdate 20990101000000Z -enddate 20990201000000Z
signed nameless a.example "" -days 30
signed zero a.example "subjectAltName=DER:ZERO" -days 30
signed other c.example "subjectAltName=DNS:c.example,DNS:*.d.example" -days 30
signed client "some client" "extendedKeyUsage=clientAuth" -days 30
key alone
openssl req -x509 -new -key alone.key -out alone.pem -days 30 -subj "/CN=alone.example" -addext "subjectAltName=DNS:a.example"
openssl ec -in server.key -aes256 -passout pass:secret -out locked.key
]]

-- subjectAltName with one DNS name, in DER: the command cannot make one with a zero byte in it.
local function alternative_name(name)
  return ("\x30%s"):format(string.pack("s1", "\x82" .. string.pack("s1", name)))
end

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

--- Makes them; the table has the texts (server_pem, server_key, ...) and .folder with the files (server.pem, ...).
--- Call :remove() when they are not needed any more.
function certificates.make()
  local folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder))
  local run = assert(io.open(folder .. "/make.sh", "w"))
  run:write((script:gsub("ZERO", hex(alternative_name "a.example\0.evil.example"))))
  run:close()
  if not os.execute(("bash %s/make.sh %s"):format(folder, folder)) then
    error("the certificates could not be made: " .. assert(io.open(folder .. "/log")):read("a"))
  end
  local made = { folder = folder }
  for _, name in ipairs { "ca", "server", "expired", "early", "nameless", "zero", "client", "alone", "locked",
    "other" } do
    for _, kind in ipairs { "pem", "key" } do
      local file = io.open(("%s/%s.%s"):format(folder, name, kind))
      if file then
        made[name .. "_" .. kind] = file:read("a")
        file:close()
      end
    end
  end
  function made.remove() os.execute("rm -rf " .. folder) end
  return made
end

return certificates
