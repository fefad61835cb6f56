#!/usr/bin/env bash
# Runs go test, and a test that failed once more.
#
#   deploy/gotest.sh GOTESTSUM "PACKAGE…" [go test flag]…
#
# The tests start dozens of servers, hosts and plugins on two cores, and wait for them.
# When the machine stalls for a while, one of them may fail; it then runs again, alone,
# and is named at the end. The failure should be investigated, but it does not hold up
# everybody's work.
#
# There is no second run for failures that do not depend on time: a data race, a panic,
# a package that does not build or leaves goroutines behind, a violation found by the
# oracle of the chaos tests, or more than ten failures. A counterexample that a property
# test found fails again in any case, because rapid keeps it in a file and starts with it.
set -euo pipefail

gotestsum=$1 packages=$2
shift 2

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

failed=0
"$gotestsum" --format pkgname-and-test-fails --format-icons text --format-hide-empty-pkg --hide-summary skipped \
  --rerun-fails=1 --rerun-fails-max-failures=10 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race \
  --rerun-fails-report="$scratch/again" --jsonfile="$scratch/events" \
  --packages="$packages" -- "$@" || failed=$?

if test -s "$scratch/again"; then
  printf '\n== run again, because they failed the first time\n'
  cat "$scratch/again"
fi
if grep -q 'ORACLE: ' "$scratch/events"; then
  echo 'gotest: the oracle found violations; a second run that finds none does not undo them' >&2
  failed=1
fi
# A package that failed although none of its tests did has no test to run again.
if grep '"Action":"fail"' "$scratch/events" | grep -v '"Test":' | grep -o '"Package":"[^"]*"' | sort -u |
  while read -r package; do
    grep '"Action":"fail"' "$scratch/events" | grep -F "$package" | grep -q '"Test":' || echo "gotest: $package failed outside of its tests"
  done | grep . >&2; then
  failed=1
fi
exit "$failed"
