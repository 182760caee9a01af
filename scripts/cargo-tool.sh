#!/usr/bin/env bash
# Prints the path of a tool of cargo's, in the version asked for: `cargo-tool.sh cargo-deny 0.20.2`; what follows is said to
# `cargo install`. The first time it is built from its sources, into a cache that outlives a clone.
set -euo pipefail
name=$1 version=$2
shift 2
root=${MAINSTEM_TOOLS:-$HOME/.cache/mainstem/tools}/$name-$version
if [ ! -x "$root/bin/$name" ]; then
  echo "building $name $version, once" >&2
  # A target folder of its own: tools are built by other rules than the workspace.
  target=$(mktemp -d)
  trap 'rm -rf "$target"' EXIT
  CARGO_TARGET_DIR=$target cargo install --quiet --locked --root "$root" "$@" "$name@$version" >&2
  [ -x "$root/bin/$name" ] || { echo "$name@$version has no program of that name" >&2; exit 1; }
fi
echo "$root/bin/$name"
