#!/usr/bin/env bash
# Builds the Go program that judges commits with indigo's code. It is kept under ~/.cache/mainstem/indigo, in a folder
# named for what it is built from, so that this is done once a machine. Prints its path as the last line.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
key=$(cat "$here/main.go" "$here/go.mod" "$here/go.sum" | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/mainstem/indigo/$key
if [ ! -x "$dir/judge" ]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9
fi
if [ ! -x "$dir/judge" ]; then
  echo "building indigo's verifier into $dir, some minutes" >&2
  (cd "$here" && go build -mod=readonly -o "$dir/judge.new" . >&2)
  mv "$dir/judge.new" "$dir/judge"
fi
echo "$dir/judge"
