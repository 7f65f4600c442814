#!/usr/bin/env bash
# Runs the end-to-end suite against a program that is built with sanitizers: sanitize.sh [address|thread ...]
# Takes a nightly Rust with its source, since std is built anew. A report fails the run; it is kept in target/sanitize/.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}
mkdir -p "$out/sanitize"
out=$(cd "$out/sanitize" && pwd)
if ! [ -d "$(rustc +nightly --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]; then
  echo "make sanitize: this takes a nightly Rust with its source: rustup toolchain install nightly -c rust-src" >&2
  exit 1
fi
# Not those that count memory and threads, or measure time: a sanitizer takes much more of each.
tests=${SANITIZE_TESTS:-transports:: routing:: relay:: quick_ack:: endings:: secrets:: direct:: statistics:: faketls web reload:: socks:: strangers:: stopping::}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')

for sanitizer in "${@:-address}"; do
  echo "==== $sanitizer"
  CARGO_TARGET_DIR=$out/$sanitizer RUSTFLAGS="-Zsanitizer=$sanitizer -Cforce-frame-pointers=yes" \
    cargo +nightly build --quiet --locked -Zbuild-std --target "$host" --bin mtproxy
  rm -f "$out/$sanitizer-report".*
  # A report ends the process, and so fails a test. It is on standard error where the sandbox allows no file.
  code=0
  ASAN_OPTIONS=log_path=$out/address-report:detect_leaks=0 \
    TSAN_OPTIONS=log_path=$out/thread-report:halt_on_error=1 \
    MTPROXY_BIN=$out/$sanitizer/$host/debug/mtproxy \
    cargo test --locked --test tests -- $tests >"$out/$sanitizer.log" 2>&1 || code=$?
  grep -aE '^test .* FAILED|^test result' "$out/$sanitizer.log" || tail -n 20 "$out/$sanitizer.log"
  reports=$(find "$out" -name "$sanitizer-report.*" | wc -l)
  echo "$sanitizer: $reports reports, suite ended with $code"
  if [ "$reports" -gt 0 ] || [ "$code" -ne 0 ]; then
    grep -ah 'SUMMARY' "$out/$sanitizer-report".* "$out/$sanitizer.log" 2>/dev/null | sort | uniq -c | sort -rn | head -n 20
    exit 1
  fi
done
