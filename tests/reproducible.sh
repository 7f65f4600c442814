#!/usr/bin/env bash
# Builds a target's static binary once more, in another folder:  tests/reproducible.sh [TARGET]
#
# Fails if a byte differs from the first, which tests/build-static.sh builds where it is missing. The second has
# another home of cargo, too, as another user has.
set -euo pipefail
cd "$(dirname "$0")/.."
TARGET=${1:-x86_64}
OTHER=$(mktemp -d "${TMPDIR:-/tmp}/mtproxy-again-XXXXXX")
trap 'rm -rf "$OTHER"' EXIT
FIRST=$(realpath "$(tests/build-static.sh "$TARGET" | sed -n '$s/: .*//p')")
mkdir "$OTHER/of-another-name"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$OTHER/of-another-name"
HOME_OF_CARGO=${CARGO_HOME:-${HOME:-/root}/.cargo}
mkdir "$OTHER/cargo"
for part in registry config.toml credentials.toml; do
  [ ! -e "$HOME_OF_CARGO/$part" ] || ln -s "$HOME_OF_CARGO/$part" "$OTHER/cargo/$part"
done
cd "$OTHER/of-another-name"
SECOND=$(CARGO_HOME="$OTHER/cargo" CARGO_TARGET_DIR="$OTHER/target" tests/build-static.sh "$TARGET" | sed -n '$s/: .*//p')
cmp "$FIRST" "$SECOND"
echo "$TARGET: two builds in different folders are equal"
