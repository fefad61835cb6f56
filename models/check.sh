#!/usr/bin/env bash
# Model-checks every variant below: the right ones must pass, the broken ones
# must fail, and for the reason they are there for. One line each; exits 1 if
# one comes out otherwise. Needs spin and gcc.
set -euo pipefail
cd "$(dirname "$0")"

# model | defines | property | kind | expected. A safety property fails by a
# violated claim, a live one by a cycle in which the good never comes.
variants() {
  cat <<'TABLE'
step_lease   |                           | safe    | safety | pass
step_lease   |                           | live    | live   | pass
step_lease   | -DMAXCRASH=2 -DMAXZOMBIE=2 | safe   | safety | pass
step_lease   | -DNOFENCE                 | safe    | safety | fail
step_lease   | -DATTEMPT                 | safe    | safety | fail
step_lease   | -DGIVEBLIND               | safe    | safety | fail
step_lease   | -DTWOTX                   | live    | live   | fail
step_lease   | -DNOSWEEP                 | live    | live   | fail
worker_lease |                           | safe    | safety | pass
worker_lease |                           | live    | live   | pass
worker_lease | -DMAXDEATH=4              | safe    | safety | pass
worker_lease | -DBLIND                   | safe    | safety | fail
worker_lease | -DNOFENCE                 | safe    | safety | fail
worker_lease | -DNOEXPIRY                | live    | live   | fail
finalize     |                           | once    | safety | pass
finalize     |                           | fin     | live   | pass
finalize     | -DMAXCRASH=2              | once    | safety | pass
finalize     | -DTHREE                   | once    | safety | pass
finalize     | -DTHREE                   | fin     | live   | pass
finalize     | -DTHREE                   | calm    | safety | pass
finalize     | -DLEFT                    | once    | safety | pass
finalize     | -DLEFT                    | fin     | live   | pass
finalize     | -DLOOK                    | fin     | live   | fail
finalize     | -DNODOOM                  | fin     | live   | fail
finalize     | -DTHREE -DEARLYLOOK       | fin     | live   | fail
finalize     | -DTHREE -DUNORDERED       | calm    | safety | fail
finalize     | -DLEFT -DNOTOKEN          | once    | safety | fail
finalize     | -DLEFT -DNOCLAIMEXPIRY    | fin     | live   | fail
lease_rewind |                           | own     | safety | pass
lease_rewind | -DCOUNTER                 | own     | safety | fail
hotswap      |                           | served  | safety | pass
hotswap      |                           | answers | live   | pass
hotswap      |                           | settles | live   | pass
hotswap      |                           | keeps   | safety | pass
hotswap      | -DTWOSTEPS                | served  | safety | fail
hotswap      | -DSWITCHFIRST             | answers | live   | fail
hotswap      | -DNODEADLINE              | settles | live   | fail
rest         |                           | safe    | safety | pass
rest         |                           | found   | live   | pass
rest         | -DNODOOR                  | safe    | safety | fail
rest         | -DASKFIRST                | safe    | safety | fail
rest         | -DTRYFIRST                | safe    | safety | fail
rest         | -DNOLOOK                  | safe    | safety | fail
rest         | -DLATE                    | safe    | safety | fail
TABLE
}

# verdict KIND OUTPUT reads the checker's report: pass, fail, or a reason why it
# is neither (a search that was cut short proves nothing).
verdict() {
  local kind=$1 out=$2 want='claim violated'
  [ "$kind" = live ] && want='acceptance cycle'
  if grep -qE 'max search depth too small|out of memory|Interrupted|hash table full' "$out"; then
    echo incomplete
  elif grep -q 'errors: 0$' "$out"; then
    echo pass
  elif grep -q "$want\|assertion violated .*(.*))" "$out"; then
    echo fail
  else
    echo broken
  fi
}

# check N MODEL DEFINES PROPERTY KIND EXPECTED verifies one variant in a folder
# of its own and prints its line.
check() {
  local n=$1 model=$2 defines=$3 property=$4 kind=$5 expected=$6
  # Not optimized: the compiler would take longer than the checks then gain.
  local dir=$work/$n got states options=(-a -m500000 -N "$property") compile=(-O0 -w -DMEMLIM=4096)
  mkdir "$dir"
  cp "$model.pml" "$dir/"
  # shellcheck disable=SC2086 # the defines are words
  if ! (cd "$dir" && spin $defines -a "$model.pml") >"$dir/spin" 2>&1; then
    cat "$dir/spin" >&2
    got=broken
  else
    [ "$kind" = live ] && options+=(-f) && compile+=(-DNFAIR=3) || compile+=(-DNOFAIR)
    (cd "$dir" && gcc "${compile[@]}" -o pan pan.c && timeout 300 ./pan "${options[@]}") >"$dir/out" 2>&1 || true
    got=$(verdict "$kind" "$dir/out")
    [ "$got" = broken ] && tail -n 20 "$dir/out" >&2
  fi
  states=$(awk '/states, stored/ { print $1; exit }' "$dir/out" 2>/dev/null || true)
  local note=ok
  [ "$got" = "$expected" ] || note='UNEXPECTED'
  printf '%-12s %-27s %-8s expected %s got %-10s %9s states  %s\n' \
    "$model" "${defines:-(right)}" "$property" "$expected" "$got" "${states:-?}" "$note" >"$dir/line"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
jobs=$(nproc 2>/dev/null || echo 2)
n=0
while IFS='|' read -r model defines property kind expected; do
  n=$((n + 1))
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  read -r model <<<"$model"
  read -r defines <<<"$defines"
  check "$(printf %03d $n)" "$model" "$defines" "${property// /}" "${kind// /}" "${expected// /}" &
done < <(variants)
wait

cat "$work"/*/line
wrong=$(cat "$work"/*/line | grep -c UNEXPECTED || true)
printf 'models: %d variants, %d as expected, %d not\n' "$n" $((n - wrong)) "$wrong"
[ "$wrong" = 0 ]
