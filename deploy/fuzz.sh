#!/usr/bin/env bash
# Runs every fuzz target of the module, one after another.
#
#   deploy/fuzz.sh DURATION
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
for pkg in $(go list ./...); do
  for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
    found=1
    printf '== %s %s\n' "$pkg" "$target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$pkg"
  done
done
[ $found = 1 ] || { echo 'no fuzz target found' >&2; exit 1; }
