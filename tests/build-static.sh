#!/usr/bin/env bash
# Builds the static musl binary:  tests/build-static.sh [TARGET]
#
# TARGET: x86_64 (default), aarch64, armv7, arm, mipsel or mips.
# Result: target/<triple>/release/mtproxy ($CARGO_TARGET_DIR takes the place of `target`). The script
#         fails if that file wants a loader or a shared library; else it prints name and size.
#
# Three ways, the first that the machine has:
#   1. rustup has the target's std ("rustup target add <triple>"): plain cargo.
#   2. rustup has std's source ("rustup component add rust-src"): cargo compiles std too.
#   3. Debian's compiler and std source, which are of one version: the same. The only way that needs
#      no download but packages. MIPS has no ready std anywhere, so there it is 2 or 3 for everybody.
# Ways 2 and 3 link with zig, which brings musl and an unwinder for every target. It is kept in
# $STATIC_TOOLS (default: ~/.cache/mtproxy-static); way 3 installs Debian packages, if run as root.
set -euo pipefail
cd "$(dirname "$0")/.."

# 0.16 put its own malloc in the place of musl's: tests and figures would no longer show what users
# of other builds get. Change it only together with the figures.
ZIG_VERSION=0.15.2
TOOLS=${STATIC_TOOLS:-${XDG_CACHE_HOME:-${HOME:-$PWD/target}/.cache}/mtproxy-static}
mkdir -p "$TOOLS"
TOOLS=$(cd "$TOOLS" && pwd) # the linker's path must be absolute
TARGET_DIR=${CARGO_TARGET_DIR:-target}

note() { echo "build-static: $*" >&2; }
fail() { note "$*"; exit 1; }

# ---- what is built: rustc's triple, zig's triple, the processor zig shall assume (- = its default).
# The processors are the ones that rustc assumes for the triple; for MIPS without a floating point unit.
TARGET=${1:-x86_64}
case $TARGET in
  x86_64)  set -- x86_64-unknown-linux-musl x86_64-linux-musl - ;;
  aarch64) set -- aarch64-unknown-linux-musl aarch64-linux-musl - ;;
  armv7)   set -- armv7-unknown-linux-musleabihf arm-linux-musleabihf generic+v7a+vfp3d16-vfp3-neon ;;
  arm)     set -- arm-unknown-linux-musleabi arm-linux-musleabi generic+v6 ;;
  mipsel)  set -- mipsel-unknown-linux-musl mipsel-linux-musleabi mips32r2+soft_float ;;
  mips)    set -- mips-unknown-linux-musl mips-linux-musleabi mips32r2+soft_float ;;
  *) fail "unknown target '$TARGET': x86_64, aarch64, armv7, arm, mipsel or mips was expected" ;;
esac
TRIPLE=$1 ZIG_TRIPLE=$2 ZIG_CPU=$3

# Installs those of the named Debian packages that are missing, or says which.
packages() {
  local name missing=()
  command -v apt-get >/dev/null ||
    fail "needs $* (Debian's names), and this is no Debian system: install them by other means, or use rustup"
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing, install them as root: ${missing[*]}"
  note "installing ${missing[*]}"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive \
      apt-get -q install -y --no-install-recommends "${missing[@]}"; } >"$TOOLS/apt.log" 2>&1 ||
    fail "apt-get could not install ${missing[*]}: see $TOOLS/apt.log"
}

# ---- compiler
WAY=debian
if command -v cargo >/dev/null && command -v rustc >/dev/null; then
  SYSROOT=$(rustc --print sysroot)
  if [ -d "$SYSROOT/lib/rustlib/$TRIPLE/lib" ]; then WAY=ready
  elif [ -f "$SYSROOT/lib/rustlib/src/rust/library/Cargo.lock" ]; then WAY=source; fi
fi
CARGO=cargo
if [ $WAY = debian ]; then
  if [ ! -x /usr/bin/cargo ] || [ ! -x /usr/bin/rustc ] || [ ! -e /usr/lib/rustlib/src/rust/library ]; then
    command -v apt-get >/dev/null || fail "rustup has neither std nor its source for $TRIPLE:" \
      "run 'rustup target add $TRIPLE' or 'rustup component add rust-src'"
    # The -web packages are Debian 12's newer compiler; a later Debian has it under the plain names.
    if [ "$(id -u)" = 0 ]; then apt-get -q update >/dev/null 2>&1 || note "apt-get update failed, going on"; fi
    if [ -n "$(apt-cache madison rust-web-src 2>/dev/null)" ]; then packages rustc-web cargo-web rust-web-src gcc
    else packages rustc cargo rust-src gcc; fi
  fi
  CARGO=/usr/bin/cargo
  export RUSTC=/usr/bin/rustc
  VERSION=$($RUSTC --version | cut -d' ' -f2)
  [ -d "/usr/src/rustc-$VERSION/library" ] ||
    fail "Debian's rustc is $VERSION, its std source is another version: bring both packages to one version"
fi

# ---- linker and flags
# Not RUSTFLAGS: cargo would then ignore the flags below, and give them to build scripts besides.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
FLAGS="-C target-feature=+crt-static"
STD=()
LINKER=
if [ $WAY = ready ]; then
  # rustup's musl targets bring start files, libc and unwinder; only the linker may be foreign.
  [ "${TRIPLE%%-*}" = "$(uname -m)" ] || LINKER=rust-lld
else
  FLAGS="$FLAGS -C link-self-contained=no" # a compiled std has no start files; zig brings them
  # Without backtraces: in a stripped binary they name nothing, and their code takes 240 KB.
  STD=(-Z "build-std=std,panic_unwind" -Z "build-std-features=panic-unwind,optimize_for_size")
  export RUSTC_BOOTSTRAP=1 # allows -Z in a stable cargo
  ZIG=$TOOLS/zig-$ZIG_VERSION/ziglang/zig
  if [ ! -f "$ZIG" ]; then
    python3 -m pip --version >/dev/null 2>&1 || packages python3 python3-pip
    note "fetching zig $ZIG_VERSION with pip"
    rm -rf "$TOOLS/zig.new"
    python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps \
      --target "$TOOLS/zig.new" "ziglang==$ZIG_VERSION" >"$TOOLS/pip.log" 2>&1 ||
      fail "pip could not install ziglang==$ZIG_VERSION: see $TOOLS/pip.log"
    rm -rf "$TOOLS/zig-$ZIG_VERSION"
    mv "$TOOLS/zig.new" "$TOOLS/zig-$ZIG_VERSION"
  fi
  [ "$("$ZIG" version)" = "$ZIG_VERSION" ] || fail "$ZIG does not run on this machine"
  # zig as the linker that rustc calls: zig has its own names for targets, and it ignores -static-pie,
  # so the two options that mean the same are given instead.
  LINKER=$TOOLS/link-$TRIPLE
  CPU_OPTION=
  [ "$ZIG_CPU" = - ] || CPU_OPTION="-mcpu=$ZIG_CPU"
  cat >"$LINKER.new" <<WRAPPER
#!/usr/bin/env bash
options=()
for option in "\$@"; do
  case \$option in
    -static-pie) options+=(-static -pie) ;;
    --target=* | -march=* | -mabi=* | -m32 | -m64) ;;
    *) options+=("\$option") ;;
  esac
done
export ZIG_GLOBAL_CACHE_DIR=\${ZIG_GLOBAL_CACHE_DIR:-"$TOOLS/zig-cache"}
log=\$(ZIG_VERBOSE_LINK=1 "$ZIG" cc -target $ZIG_TRIPLE $CPU_OPTION "\${options[@]}" 2>&1) || {
  echo "\$log" >&2
  exit 1
}
# Once more with two options that zig doesn't pass on: equal functions are kept once, and relocations are
# packed (musl 1.2.4). Together 25 KB less, at no cost. If that fails, what there is stays.
linked=\$(grep '^ld.lld ' <<<"\$log" | tail -n 1)
"$ZIG" \$linked --icf=all --pack-dyn-relocs=relr || echo "build-static: linked without --icf and packed relocations" >&2
WRAPPER
  chmod +x "$LINKER.new"
  mv "$LINKER.new" "$LINKER"
fi
# The same bytes in every folder and for every user (tests/reproducible.sh): messages of a panic name source files.
HOME_OF_CARGO=${CARGO_HOME:-${HOME:-/root}/.cargo}
SYSROOT=$(${RUSTC:-rustc} --print sysroot)
FLAGS="$FLAGS --remap-path-prefix=$PWD=. --remap-path-prefix=$HOME_OF_CARGO/registry/src= --remap-path-prefix=$SYSROOT="
NAME=$(tr a-z- A-Z_ <<<"$TRIPLE")
export "CARGO_TARGET_${NAME}_RUSTFLAGS=$FLAGS"
[ -z "$LINKER" ] || export "CARGO_TARGET_${NAME}_LINKER=$LINKER"

# ---- build
# The daemon waits for the system more than it computes: little inlining there takes 40 KB off and costs
# no speed. Not less than -O3: linking decides over the library's ciphers too, and those for AES
# instructions become half as fast at -O2 or -Os. MIPS has none, and is no slower with -Os (qemu).
case $TARGET in
  mips*) SMALLER="opt-level=s" ;;
  *) SMALLER="llvm-args=-inline-threshold=25" ;;
esac
"$CARGO" rustc --locked --release --bin mtproxy --target "$TRIPLE" --target-dir "$TARGET_DIR" "${STD[@]}" \
  -- -C "$SMALLER" ||
  fail "cargo failed (compiler: ${RUSTC:-rustc}, way: $WAY)"

# ---- check
BINARY=$TARGET_DIR/$TRIPLE/release/mtproxy
command -v readelf >/dev/null || fail "readelf is missing (Debian: binutils), so $BINARY is not checked"
HEADERS=$(readelf --program-headers --dynamic --wide "$BINARY") || fail "readelf cannot read $BINARY"
if grep -q INTERP <<<"$HEADERS"; then fail "$BINARY wants a dynamic loader"; fi
if grep -q NEEDED <<<"$HEADERS"; then fail "$BINARY wants shared libraries"; fi
echo "$BINARY: $(stat -c %s "$BINARY") bytes, static"
