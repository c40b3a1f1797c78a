#!/bin/sh
# Installs what `make demo` and `make test` need: Debian packages that are missing, named first,
# and the Python packages into a virtual environment of the checkout. No service is started.
set -eu

missing=""
need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need sshd openssh-server
need ssh openssh-client
need tmux tmux
need unshare util-linux
need g++ g++
python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
python3 -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(os.path.join(s.get_paths()["include"], "Python.h")))' \
  || missing="$missing python3-dev"

if [ -n "$missing" ]; then
  echo "missing Debian packages:$missing"
  root=""
  [ "$(id -u)" = 0 ] || root="sudo"
  command -v apt-get >/dev/null 2>&1 || {
    echo "error: this is no Debian; install$missing and run this again" >&2
    exit 1
  }
  # A policy that forbids it is how Debian is told to start no service that it installs.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
    trap '$root rm -f "$policy"' EXIT
  fi
  $root apt-get update -q
  # shellcheck disable=SC2086
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
"$VENV/bin/python" -m pip install -q "$TORCH"
"$VENV/bin/python" -m pip install -q -e ".[trainer,dev]"
