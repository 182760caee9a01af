#!/usr/bin/env bash
# Installs what the test with real servers and clients needs: Node 22, two PDSs' and a PLC directory's packages, the
# TypeScript and the Python client. Everything goes under ~/.cache/mainstem/realnet, in a folder named for what is asked
# for, so that it is done once a machine and not once a clone. Prints the folder as its last line.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
node=22.23.3 # 24 crashes with the PDS's database module

key=$(cat "$here/package-lock.json" "$here/requirements.txt" "$here/install.sh" | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/mainstem/realnet/$key
if [ ! -f "$dir/complete" ]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9
fi
if [ ! -f "$dir/complete" ]; then
  echo "installing real servers and clients into $dir, some minutes" >&2
  mkdir -p "$dir/node"
  echo '{"private":true}' >"$dir/node/package.json"
  cd "$dir" # whatever happens meanwhile to where we were called
  (cd "$dir/node" && npm install --no-audit --no-fund --silent "node@$node" >&2)
  # The package of the platform is where the headers are; the database module compiles against them.
  headers=$(dirname "$(dirname "$(dirname "$(find "$dir/node/node_modules" -path '*/include/node/node.h' | head -n 1)")")")
  cp "$here/package.json" "$here/package-lock.json" .
  if [ ! -f packages-complete ]; then
    PATH="$dir/node/node_modules/.bin:$PATH" npm_config_nodedir="$headers" npm ci --no-audit --no-fund --silent >&2
    touch packages-complete
  fi
  python3 -m venv --clear venv
  venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
  touch complete
fi
echo "$dir"
