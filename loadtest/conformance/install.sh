#!/usr/bin/env bash
# Installs kosoku, the Autobahn test suite of WebSockets, under ~/.cache/mainstem/conformance, in a folder named for what
# is asked for, so that it is done once a machine and not once a clone. Prints the folder as its last line.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

key=$(cat "$here/requirements.txt" "$here/install.sh" | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/mainstem/conformance/$key
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
if [ ! -f "$dir/complete" ]; then
  python3 -m venv --clear "$dir/venv" >&2
  "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
  touch "$dir/complete"
fi
echo "$dir"
