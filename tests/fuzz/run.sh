#!/usr/bin/env bash
# Builds the fuzz targets with a nightly Rust and runs each for so many seconds, two at a time: run.sh SECONDS [TARGET...]
# A bug that is planted in the harness must be found first. Corpora and findings stay in target/fuzz/.
set -euo pipefail
seconds=${1:-20}
shift || true
here=$(cd "$(dirname "$0")" && pwd)
out=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$out"
out=$(cd "$out" && pwd)/fuzz

if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "make fuzz: there is no nightly Rust here, which it takes: rustup toolchain install nightly" >&2
  exit "${FUZZ_MISSING:-1}"
fi
if ! command -v c++ >/dev/null; then
  echo "make fuzz: there is no C++ compiler here, which libFuzzer takes: on Debian: g++" >&2
  exit "${FUZZ_MISSING:-1}"
fi

# Those of cargo-fuzz: coverage for libFuzzer, and AddressSanitizer.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address"
export RUSTFLAGS CARGO_TARGET_DIR=$out/build
host=$(rustc +nightly -vV | sed -n 's/^host: //p')

# build NAME OPTION...: builds with these options of rustc, and keeps the program under that name.
build() {
  local name=$1
  shift
  cargo +nightly rustc --quiet --locked --release --target "$host" --manifest-path "$here/Cargo.toml" -- "$@"
  cp "$CARGO_TARGET_DIR/$host/release/mtproxy-fuzz" "$out/$name"
}

# fuzz PROGRAM TARGET SECONDS: its log is $out/PROGRAM-TARGET.log.
fuzz() {
  local corpus=$out/corpus/$2
  mkdir -p "$corpus"
  TARGET=$2 CORPUS=$corpus "$out/$1" -max_total_time="$3" -timeout=10 -rss_limit_mb=2048 -max_len=20000 \
    -artifact_prefix="$out/$1-$2-" "$corpus" >"$out/$1-$2.log" 2>&1
}

# one TARGET: runs it and prints a line; what was found, if something was.
one() {
  if fuzz targets "$1" "$seconds"; then
    printf '%-14s %s\n' "$1" "$(grep -a 'DONE ' "$out/targets-$1.log" | tail -n 1)"
  else
    printf '%-14s FAILED\n' "$1"
    grep -aE -A 30 "panicked|ERROR|SUMMARY|Test unit written" "$out/targets-$1.log" | head -n 60
    return 1
  fi
}

build targets
build planted --cfg planted_bug
if fuzz planted tls_records 60; then
  echo "make fuzz: the planted bug was not found in 60 s: this harness finds nothing" >&2
  exit 1
fi
if ! grep -q 'in pieces' "$out/planted-tls_records.log"; then
  tail -n 20 "$out/planted-tls_records.log" >&2
  exit 1
fi
echo "the planted bug is found"

if [ $# = 0 ]; then
  mapfile -t names < <("$out/targets")
  set -- "${names[@]}"
fi
export -f fuzz one
export out seconds
printf '%s\n' "$@" | xargs -P 2 -I {} bash -c 'one {}'
