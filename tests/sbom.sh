#!/usr/bin/env bash
# Prints the crates of the program as CycloneDX 1.5 JSON, from Cargo.lock and the crates' own licences.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# What is compiled into it or builds it, for all targets: `name version|licence`.
USED=$(cargo tree --locked --target all -e normal,build --prefix none --format '{p}|{l}' |
  sed 's/ (\*)$//; s/ ([^)]*)|/|/; s| v\([0-9]\)| \1|' | sort -u)
awk -v version="$VERSION" '
  # First the licences, then Cargo.lock.
  FNR == NR { split($0, part, "|"); licence[part[1]] = part[2]; next }
  /^name = /     { gsub(/"/, "", $3); name = $3 }
  /^version = /  { gsub(/"/, "", $3); number = $3 }
  /^checksum = / {
    gsub(/"/, "", $3)
    key = name " " number
    if (!(key in licence)) next
    expression = licence[key]
    gsub("/", " OR ", expression)
    purl = "pkg:cargo/" name "@" number
    items = items separator "    {\"type\": \"library\", \"bom-ref\": \"" purl "\", \"name\": \"" name "\", " \
      "\"version\": \"" number "\",\n     \"purl\": \"" purl "\", \"licenses\": [{\"expression\": \"" expression "\"}],\n" \
      "     \"hashes\": [{\"alg\": \"SHA-256\", \"content\": \"" $3 "\"}]}"
    separator = ",\n"
  }
  END {
    print "{\"bomFormat\": \"CycloneDX\", \"specVersion\": \"1.5\", \"version\": 1,"
    print "  \"metadata\": {\"component\": {\"type\": \"application\", \"name\": \"mtproxy\", \"version\": \"" version "\"}},"
    print "  \"components\": ["
    print items
    print "  ]}"
  }' <(echo "$USED") Cargo.lock
