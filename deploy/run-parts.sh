#!/usr/bin/env bash
# Runs make targets one after another with their output, says how long each
# took, and stops at the first that fails.
#
#   deploy/run-parts.sh MAKE TARGET…
set -euo pipefail
cd "$(dirname "$0")/.."

make=$1
shift
summary=()
for part in "$@"; do
  printf '\n== %s\n' "$part"
  SECONDS=0
  if ! "$make" "$part"; then
    printf '\n== %s FAILED after %ds\n' "$part" "$SECONDS" >&2
    exit 1
  fi
  summary+=("$(printf '%-12s %4ds' "$part" "$SECONDS")")
done
printf '\n== all parts passed\n'
printf '  %s\n' "${summary[@]}"
