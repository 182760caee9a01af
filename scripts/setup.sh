#!/usr/bin/env bash
# Makes sure that what a build (`build`), a cluster on this machine (`cluster`) or the whole test suite (`test`) needs is
# there. As root on a Debian-like system it installs what is missing; elsewhere it says what to install and stops.
set -euo pipefail
what=${1:-build}

missing=()
need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

need cc gcc
need make make
[ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev) # Kafka's client speaks TLS with it
if [ "$what" = test ]; then
  need node nodejs
  need npm npm
  need python3 python3
  need ip iproute2 # network namespaces, whose links the tests cut
  need ss iproute2
  need go golang-go # indigo, the other implementation that commits are judged by
  need g++ g++ # better-sqlite3, a part of the real PDS, compiles
  if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  fi
fi

if [ "$what" = test ] || [ "$what" = cluster ]; then
  need java openjdk-17-jre-headless # Kafka and the CQL server run on it
  need mvn maven # fetches both
fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setup: installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "setup: please install: ${missing[*]} (Debian's names; as root this is done for you)" >&2
    exit 1
  fi
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "setup: no cargo here. Install Rust with rustup (https://rustup.rs); rust-toolchain.toml picks the version." >&2
  exit 1
fi
# With rustup, this fetches the pinned toolchain if it is not there yet.
rustc --version >/dev/null || { echo "setup: rustc does not run; see rust-toolchain.toml for the version needed" >&2; exit 1; }
