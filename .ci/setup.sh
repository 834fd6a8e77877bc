# Sourced by ./run and ./test: installs what is missing, configures, builds.
# Sets LUA_PATH and LUA_CPATH for the build tree.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

need_packages() { # need_packages "command-or-file package" ...
  local missing=() entry probe package
  for entry in "$@"; do
    probe=${entry%% *} package=${entry##* }
    case $probe in
      /*) [ -e "$probe" ] || missing+=("$package") ;;
      *) command -v "$probe" >/dev/null 2>&1 || missing+=("$package") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 && sudo=(sudo)
  fi
  if ! command -v apt-get >/dev/null 2>&1 || { [ "$(id -u)" -ne 0 ] && [ ${#sudo[@]} -eq 0 ]; }; then
    echo "agather: these packages are missing and cannot be installed from here: ${missing[*]}" >&2
    echo "agather: install them (Debian: apt-get install ${missing[*]}) and try again" >&2
    exit 1
  fi
  if [ -t 0 ] && [ -t 2 ] && [ -z "${CI:-}" ]; then
    printf 'agather: install %s? [Y/n] ' "${missing[*]}" >&2
    read -r answer
    case $answer in n*|N*) exit 1 ;; esac
  fi
  echo "agather: installing ${missing[*]}" >&2
  "${sudo[@]}" apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || {
    echo "agather: could not install: ${missing[*]}" >&2
    exit 1
  }
}

build_packages=("cc gcc" "cmake cmake" "ninja ninja-build" "pkg-config pkg-config"
  "lua5.4 lua5.4" "/usr/include/lua5.4/lua.h liblua5.4-dev" "/usr/include/uv.h libuv1-dev"
  "/usr/include/openssl/ssl.h libssl-dev"
  "curl-config libcurl4-openssl-dev" "/usr/include/jansson.h libjansson-dev")

build() { # build PRESET DIRECTORY [TARGET]...
  [ -f "$top/$2/build.ninja" ] || (cd "$top" && cmake --preset "$1" >"/tmp/agather-configure.$$" 2>&1) || {
    cat "/tmp/agather-configure.$$" >&2
    exit 1
  }
  rm -f "/tmp/agather-configure.$$"
  local out
  out=$(ninja -C "$top/$2" "${@:3}" 2>&1) || {
    printf '%s\n' "$out" >&2
    exit 1
  }
}

use_build() { # use_build DIRECTORY
  export LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;$top/?.lua;${LUA_PATH:-;}"
  export LUA_CPATH="$top/$1/?.so;${LUA_CPATH:-;}"
}
