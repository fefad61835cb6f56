#!/usr/bin/env bash
# Runs every fuzz target of the module, one after another, and 10,000 requests
# made out of the description of the API.
#
#   deploy/fuzz.sh DURATION
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
packages=$(go list ./...)
for pkg in $packages; do
  listed=$(go test -list '^Fuzz' "$pkg")
  for target in $(grep '^Fuzz' <<<"$listed" || true); do
    found=1
    printf '== %s %s\n' "$pkg" "$target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$pkg"
  done
done
[ $found = 1 ] || { echo 'no fuzz target found' >&2; exit 1; }

TASKER_REQUESTS=${TASKER_REQUESTS:-10000} TASKER_REQUESTS_SEED=${TASKER_REQUESTS_SEED:-$(date +%s)} \
  go test -count=1 -run '^TestGeneratedRequests$' -v ./host/internal/core
