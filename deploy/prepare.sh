#!/usr/bin/env bash
# Installs what is missing for the named parts, or says which command does.
#
#   deploy/prepare.sh all                      everything `make test` needs
#   deploy/prepare.sh go postgres gcc spin protoc python ruby systemd pooler
#
# Packages come from the distribution (Debian, Ubuntu) through apt-get, as root
# or with a sudo that asks no password. Otherwise the script names the command
# and fails: a missing prerequisite is never skipped. Nothing is printed for
# what is already there.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  printf 'prepare: %s\n' "$*" >&2
  exit 1
}

# version_at_least HAVE WANT compares dotted versions.
version_at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_go() {
  local want have
  want=$(awk '$1 == "go" { print $2; exit }' go.mod)
  command -v go >/dev/null || die "Go $want or later is needed: https://go.dev/dl/"
  have=$(go env GOVERSION)
  have=${have#go}
  version_at_least "${have%% *}" "$want" || die "Go $want or later is needed, found $have: https://go.dev/dl/"
}

have_postgres() {
  [ -n "${PG_BINDIR:-}" ] && [ -x "$PG_BINDIR/postgres" ] && return 0
  local dir
  for dir in /usr/lib/postgresql/*/bin; do
    [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && version_at_least "$(basename "$(dirname "$dir")")" 15 && return 0
  done
  command -v postgres >/dev/null && command -v initdb >/dev/null
}

# The race detector links through cgo, so the C library's headers belong to gcc.
have_gcc() { command -v gcc >/dev/null && printf '#include <stdlib.h>\n' | gcc -E - >/dev/null 2>&1; }

# The distribution's Python, whatever comes first in PATH: its packages are for it.
have_python() { command -v openssl >/dev/null && /usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null; }

packages=()
need() { packages+=("$@"); }

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(all)
for part in "${parts[@]}"; do
  case $part in
    all) parts=(go postgres gcc spin protoc python ruby systemd pooler) ;;
  esac
done
for part in "${parts[@]}"; do
  case $part in
    go) check_go ;;
    postgres) have_postgres || need postgresql ;;
    gcc) have_gcc || need gcc libc6-dev ;;
    spin) command -v spin >/dev/null || need spin ;;
    protoc) command -v protoc >/dev/null || need protobuf-compiler ;;
    python) have_python || need python3 python3-grpcio python3-protobuf openssl ;;
    systemd) command -v systemd-analyze >/dev/null || need systemd ;;
    pooler) [ -x /usr/sbin/pgbouncer ] || need pgbouncer ;;
    ruby) ruby -e 'require "pg"' 2>/dev/null || need ruby ruby-pg ;;
    *) die "unknown part '$part' (go, postgres, gcc, spin, protoc, python, ruby, systemd, pooler, all)" ;;
  esac
done
[ ${#packages[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian package names); install them with your package manager"
by_hand="apt-get update && apt-get install --no-install-recommends ${packages[*]}"
if [ "$(id -u)" = 0 ]; then
  as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  die "missing: ${packages[*]}. Run as root: $by_hand"
fi

printf 'prepare: installing %s\n' "${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >>"$log" 2>&1; }
# A mirror that cannot be refreshed may still serve what its lists name.
apt update || printf 'prepare: apt-get update had errors, installing from the lists at hand\n' >&2
apt install --no-install-recommends "${packages[@]}" || {
  tail -n 20 "$log" >&2
  die "could not install ${packages[*]}; by hand: $by_hand"
}
# An old distribution's PostgreSQL may be too old.
case " ${packages[*]} " in
  *" postgresql "*) have_postgres || die "the distribution's PostgreSQL is older than 15: set PG_BINDIR to the binaries of a newer one, or DATABASE_URL to a server" ;;
esac
