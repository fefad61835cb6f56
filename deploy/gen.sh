#!/usr/bin/env bash
# Generates Go code from the .proto files with the pinned generators in
# .tools/bin (`make gen`).
#
#   deploy/gen.sh           writes the generated files beside their sources
#   deploy/gen.sh --check   generates elsewhere and fails on a difference
#
# The comment that names protoc's own version is ignored by the check: protoc
# comes from the distribution, and only the generators decide the code.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.tools/bin:$PATH"
deploy/prepare.sh protoc

out=$PWD/sdk/proto
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi

mapfile -t protos < <(cd sdk/proto && find . -name '*.proto' -printf '%P\n' | sort)
(cd sdk/proto && protoc -I . \
  --go_out="$out" --go_opt=paths=source_relative \
  --go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
  "${protos[@]}")

# The messages of the example plugin in Python; a test compares them with the
# contract, because what protoc writes for Python depends on its version.
python=plugins/python/greeter/tasker_plugin/v1
if [ "${1:-}" != --check ]; then
  protoc -I sdk/proto/tasker/plugin/v1 --python_out="$python" plugin.proto
  exit 0
fi
status=0
while IFS= read -r file; do
  diff -u -I '^// \(- \|	\)\?protoc  *v' "sdk/proto/$file" "$out/$file" || status=1
done < <(cd "$out" && find . -name '*.go' -printf '%P\n' | sort)
[ $status = 0 ] || { echo "generated code differs from its .proto, run 'make gen'" >&2; exit 1; }
echo "generated code matches its .proto files"
