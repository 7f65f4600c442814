# The one door to this repository: `make help` lists what there is, and CI calls nothing else.
#
# Only cargo (and the C compiler's driver that it links with) is needed for build, run and test.
# `static` needs bash and says what else it wants. CARGO_TARGET_DIR is honoured everywhere.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# run: the port, the address that clients reach this machine by (its first one if not given), the secret (made
# up if not given), further options; run-middle: also where Telegram's two files are.
SERVER :=
SECRET_FILE := proxy-secret
CONFIG := proxy-multi.conf
PORT := 8443
SECRET :=
ARGS :=

# static, size, test-static: x86_64, aarch64, armv7, arm, mipsel or mips, and what runs its programs.
TARGET := x86_64
RUNNER := $(if $(filter x86_64,$(TARGET)),,qemu-$(TARGET:armv7=arm)-static)
TRIPLE := $(TARGET)-unknown-linux-musl$(if $(filter armv7,$(TARGET)),eabihf)$(if $(filter arm,$(TARGET)),eabi)

# Bounds of the static binary in bytes, checked by `make size`; the README names them, too (tests/readme.rs).
MAX_x86_64 := 1265000
MAX_mipsel := 1520000

# The short form of the end-to-end suite: names of tests, or beginnings of names.
SHORT_TESTS := transports:: routing:: relay::bulk_1mib quick_ack:: endings::basic addresses:: secrets:: direct:: statistics:: clock:: sandbox::

# fuzz: how long each target runs.
SECONDS := 20
TARGETS :=
# soak: how long clients come and go.
MINUTES := 3
# sanitize: which ones, address or thread.
SANITIZERS := address

# Telegram publishes its two files here, and only here.
TELEGRAM := https://core.telegram.org

.ONESHELL:
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help
.PHONY: help build run run-middle config test lint fmt audit bench hostile faults soak fuzz sanitize static size sbom reproducible dist test-static check cargo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	echo "  Variables: PORT SERVER SECRET ARGS (run), SECRET_FILE CONFIG (run-middle), ARGS (bench), SECONDS TARGETS (fuzz), MINUTES (soak), TARGET RUNNER (static ...)"

# Not listed: what every use of cargo needs, said in one sentence instead of a shell's error.
cargo:
	@if ! command -v cargo >/dev/null; then
	  echo "make: cargo is missing: install Rust 1.89 or newer (rustup; on Debian 12: rustc-web cargo-web)" >&2
	  exit 1
	fi
	if ! command -v cc >/dev/null; then
	  echo "make: cc is missing, which Rust links with: install a C compiler (on Debian: gcc)" >&2
	  exit 1
	fi

build: cargo ## build the program for this machine: target/release/mtproxy
	@cargo build --locked --release --bin mtproxy

run: build ## start direct mode: needs no files, makes up a secret, prints link and QR code
	@server="$(SERVER)"
	if [ -z "$$server" ]; then server=$$(hostname -I 2>/dev/null | cut -d ' ' -f 1); fi
	secret="$(SECRET)"
	exec "$(TARGET_DIR)/release/mtproxy" -H "$(PORT)" --print-links --server "$${server:-127.0.0.1}" \
	  $${secret:+-S "$$secret"} $(ARGS)

run-middle: build ## start middle mode with Telegram's two files; fetches them if they are missing
	@fetch=
	for pair in "proxy-secret=$(SECRET_FILE)" "proxy-multi.conf=$(CONFIG)"; do
	  file=$${pair#*=}
	  if [ -r "$$file" ]; then continue; fi
	  if [ "$$file" != "$${pair%%=*}" ]; then
	    echo "make run-middle: cannot read $$file" >&2
	    exit 1
	  fi
	  fetch=yes
	done
	if [ -n "$$fetch" ]; then $(MAKE) --no-print-directory config; fi
	secret="$(SECRET)"
	if [ -z "$$secret" ]; then secret=$$("$(TARGET_DIR)/release/mtproxy" secret); fi
	server="$(SERVER)"
	if [ -z "$$server" ]; then server=$$(hostname -I 2>/dev/null | cut -d ' ' -f 1); fi
	exec "$(TARGET_DIR)/release/mtproxy" -H "$(PORT)" -S "$$secret" --print-links --server "$${server:-127.0.0.1}" \
	  --aes-pwd "$(SECRET_FILE)" $(ARGS) "$(CONFIG)"

# Both files arrive before either is replaced, and each is replaced in one step.
config: ## fetch proxy-secret and proxy-multi.conf from Telegram into this directory
	@new=$$(mktemp -d ./.config-XXXXXX)
	trap 'rm -rf "$$new"' EXIT
	trap 'exit 1' HUP INT TERM
	if command -v curl >/dev/null; then
	  fetch() { curl -fsSL --connect-timeout 10 --max-time 60 -o "$$2" "$$1"; }
	elif command -v wget >/dev/null; then
	  fetch() { wget -nv -T 20 -t 1 -O "$$2" "$$1"; }
	else
	  echo "make config: neither curl nor wget is installed: install one of them" >&2
	  exit 1
	fi
	for pair in getProxySecret=proxy-secret getProxyConfig=proxy-multi.conf; do
	  if ! fetch "$(TELEGRAM)/$${pair%=*}" "$$new/$${pair#*=}" 2>"$$new/error"; then
	    echo "make config: $(TELEGRAM)/$${pair%=*} cannot be fetched ($$(tail -n 1 "$$new/error")):" \
	      "fetch it on another machine, save it here as $${pair#*=}, and try again" >&2
	    exit 1
	  fi
	done
	size=$$(wc -c <"$$new/proxy-secret")
	if [ "$$size" -lt 32 ] || [ "$$size" -gt 256 ] || ! grep -q '^proxy_for ' "$$new/proxy-multi.conf"; then
	  echo "make config: what $(TELEGRAM) sent is not Telegram's two files; nothing was changed" >&2
	  exit 1
	fi
	chmod 600 "$$new/proxy-secret"
	mv "$$new/proxy-secret" "$$new/proxy-multi.conf" .
	echo "proxy-secret ($$size bytes) and proxy-multi.conf ($$(grep -c '^proxy_for ' proxy-multi.conf) addresses) are here"

# More threads than cores: a few tests do nothing but wait for a real deadline.
test test-static: export RUST_TEST_THREADS ?= 8

# One test opens a thousand connections beside all others: more than a user may by default, less than it may allow itself.
test: cargo ## run all tests (needs cargo and cc only; installs nothing, uses nothing beyond loopback)
	@files=$$(ulimit -Sn)
	if [ "$$files" != unlimited ] && [ "$$files" -lt 4096 ]; then
	  ulimit -Sn 4096 2>/dev/null || ulimit -Sn "$$(ulimit -Hn)"
	fi
	cargo test --locked --lib --bins --tests

lint: cargo ## check formatting, clippy and documentation, warnings denied
	@cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib

fmt: cargo ## format the source
	@cargo fmt

# Packages in Cargo.lock, this one included, for all targets together. A larger number is a decision, not an accident.
LOCKED_MOST := 35

audit: cargo ## print what a review has to read: code lines by part, unsafe blocks, crates; and check their bounds
	@figures=$$(cargo test --locked --quiet --test tests sizes::source_keeps_to_its_sizes -- --nocapture) || { echo "$$figures"; exit 1; }
	echo "$$figures" | grep -E '^ *[0-9]+ (lines|unsafe)'
	allowed=' aes ctr sha1 sha2 md-5 hmac x25519-dalek crossbeam-channel lexopt '
	names=$$(cargo tree --locked --all-features --target all -e normal,build,dev --depth 1 --prefix none | sed 1d | cut -d' ' -f1 | sort -u)
	test -n "$$names"
	for name in $$names; do
	  case "$$allowed" in *" $$name "*) ;; *) echo "make audit: $$name is not among:$$allowed" >&2; exit 1 ;; esac
	done
	locked=$$(grep -c '^\[\[package\]\]' Cargo.lock)
	printf '%6d direct crates, %d packages locked of at most %d\n' $$(echo "$$names" | wc -l) "$$locked" $(LOCKED_MOST)
	test "$$locked" -le $(LOCKED_MOST)

	cargo tree --locked --all-features --target all -e normal,build,dev --prefix none --format '{p}|{l}' |
	  sed 's/ (\*)$$//; s/ ([^)]*)|/|/; s/ v/|/' | sort -u | awk -F'|' '
	    FILENAME == "tests/crates.txt" { if (!/^#/) { name = $$0; sub(/ .*/, "", name); sub(/^[^ ]* */, ""); purpose[name] = $$0 } next }
	    FILENAME == "Cargo.lock" { if (/^name = /) { gsub(/name = |"/, ""); locked[$$0] } next }
	    { printf "  %-24s %-10s %-36s %s\n", $$1, $$2, $$3, purpose[$$1] }
	    function wrong(text) { print "make audit: " text > "/dev/stderr"; status = 1 }
	    END {
	      for (name in locked) if (!purpose[name]) wrong("tests/crates.txt does not say what " name " is for")
	      for (name in purpose) if (purpose[name] && !(name in locked)) wrong("tests/crates.txt names " name ", which Cargo.lock does not")
	      exit status
	    }' tests/crates.txt Cargo.lock -
	if cargo audit --version >/dev/null 2>&1; then cargo audit; else echo "known advisories: not looked up, cargo-audit is not here"; fi

bench: cargo ## measure on loopback beside a plain relay (BENCH_JSON=file writes the figures as JSON)
	@cargo bench --locked --bench bench -- $(ARGS)

hostile: cargo ## run the attacks at full size, with bystanders, and print a table (minutes)
	@ulimit -Sn "$$(ulimit -Hn)"
	cargo build --locked --release --bin mtproxy
	MTPROXY_BIN="$${MTPROXY_BIN:-$(abspath $(TARGET_DIR))/release/mtproxy}" \
	  cargo test --locked --test tests -- hostile:: --ignored --nocapture --test-threads=1

faults: cargo ## run transfers over networks with faults: loss, delay, reordering, small packets, silence (minutes)
	@cargo test --locked --test tests -- faults:: --ignored --nocapture --test-threads=2
fuzz: cargo ## fuzz the parsers for SECONDS each, with a nightly Rust (TARGETS="link ..." for some of them)
	@tests/fuzz/run.sh "$(SECONDS)" $(TARGETS)

soak: cargo ## let clients come and go for MINUTES in both modes while backends, settings and strangers change; then idle
	@ulimit -Sn "$$(ulimit -Hn)"
	cargo build --locked --release --bin mtproxy
	MTPROXY_BIN="$${MTPROXY_BIN:-$(abspath $(TARGET_DIR))/release/mtproxy}" SOAK_MINUTES="$(MINUTES)" \
	  cargo test --locked --test tests -- soak:: idle:: --ignored --nocapture --test-threads=3

sanitize: cargo ## run most end-to-end tests under AddressSanitizer, with a nightly Rust (SANITIZERS=thread for the other)
	@tests/sanitize.sh $(SANITIZERS)

static: ## build the static musl binary (TARGET=x86_64, aarch64, armv7, arm, mipsel, mips)
	@tests/build-static.sh "$(TARGET)"

size: static ## build the static binary and compare with the bounds, other built targets too
	@over=
	for bound in x86_64=$(MAX_x86_64) mipsel=$(MAX_mipsel); do
	  file=$(TARGET_DIR)/$${bound%=*}-unknown-linux-musl/release/mtproxy
	  if [ ! -f "$$file" ]; then continue; fi
	  size=$$(wc -c <"$$file")
	  echo "$${bound%=*}: $$size bytes of at most $${bound#*=}"
	  if [ "$$size" -gt "$${bound#*=}" ]; then over=yes; fi
	done
	if [ -n "$$over" ]; then
	  echo "make size: too large (the bounds are for a std without backtraces, see tests/build-static.sh)" >&2
	  exit 1
	fi

sbom: cargo ## write target/sbom.json, the list of crates with versions, licences and checksums (CycloneDX)
	@tests/sbom.sh >"$(TARGET_DIR)/sbom.json"

reproducible: ## build the static binary twice, in different folders, and compare (TARGET=...)
	@tests/reproducible.sh "$(TARGET)"

DIST_TARGETS := x86_64 aarch64 armv7 arm mipsel mips
dist: sbom ## put the static binaries of all targets, SHA256SUMS and the list of crates into target/dist
	@rm -rf "$(TARGET_DIR)/dist"
	mkdir -p "$(TARGET_DIR)/dist"
	for target in $(DIST_TARGETS); do
	  file=$$(tests/build-static.sh "$$target" | sed -n '$$s/: .*//p')
	  cp "$$file" "$(TARGET_DIR)/dist/mtproxy-$$target"
	done
	cp "$(TARGET_DIR)/sbom.json" "$(TARGET_DIR)/dist/"
	cd "$(TARGET_DIR)/dist"
	sha256sum mtproxy-* sbom.json >SHA256SUMS
	cat SHA256SUMS

test-static: cargo static ## run the short end-to-end tests against the static binary (TARGET=..., RUNNER=...)
	@if [ -n "$(RUNNER)" ] && ! command -v "$(RUNNER)" >/dev/null; then
	  echo "make test-static: $(RUNNER) is missing (on Debian: qemu-user-static)" >&2
	  exit 1
	fi
	MTPROXY_BIN="$(abspath $(TARGET_DIR))/$(TRIPLE)/release/mtproxy" $(if $(RUNNER),MTPROXY_RUNNER="$(RUNNER)") \
	  cargo test --locked --test tests -- $(SHORT_TESTS)

check: ## everything that CI runs (lint, tests, dependencies, static binaries and their tests)
	@.ci/run
