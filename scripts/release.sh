#!/usr/bin/env bash
# Makes what a release consists of, in dist/: the program without debug information, the notices of what is built into it,
# its SBOM (CycloneDX), and the sums of all. From a clean tree, so that the commit it names is what it was built from.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "$(git status --porcelain)" ]; then
  echo "release: there are changes that are not committed; a release is built from a commit" >&2
  exit 1
fi
scripts/setup.sh build
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=mainstem-$version-$(rustc -vV | sed -n 's/^host: //p')
if ! grep -q "^## $version" CHANGELOG.md; then
  echo "release: CHANGELOG.md has no section for $version" >&2
  exit 1
fi

about=$(scripts/cargo-tool.sh cargo-about 0.9.3 --features cli)
cyclonedx=$(scripts/cargo-tool.sh cargo-cyclonedx 0.5.9)
cargo build --release --workspace --bins

rm -rf dist
mkdir -p "dist/$name"
strip -o "dist/$name/mainstem" "$target/release/mainstem"
cp LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md "dist/$name/"
"$about" generate --offline --manifest-path relay/Cargo.toml --fail -o "dist/$name/THIRD-PARTY.txt" deploy/notices.hbs
"$cyclonedx" cyclonedx --manifest-path relay/Cargo.toml --format json --spec-version 1.5 --override-filename mainstem.cdx
mv relay/mainstem.cdx.json "dist/$name.cdx.json"
# It makes one for each crate of the workspace.
find . -name mainstem.cdx.json -not -path './target/*' -delete
tar -C dist -czf "dist/$name.tar.gz" --owner=0 --group=0 --sort=name "$name"
(cd dist && sha256sum "$name.tar.gz" "$name.cdx.json" > SHA256SUMS)
"dist/$name/mainstem" --version
ls -l dist
