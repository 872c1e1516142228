#!/usr/bin/env bash
# Installs what is missing, builds everything and runs every test.
#   launch/test.sh              the suite
#   launch/test.sh sanitizers   the suite under AddressSanitizer and UBSan, the groups of ranks under ThreadSanitizer
set -euo pipefail
cd "$(dirname "$0")/.."
launch/dependencies.sh tests

suite() {  # suite PRESET [ctest arguments]
  local preset=$1
  shift
  cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset"
  ctest --preset "$preset" "$@"
}

case "${1:-}" in
  "") suite release ;;
  sanitizers)
    suite asan-ubsan
    suite tsan -R '^dist\.|^moe\.|^model\.'
    ;;
  *) echo "usage: launch/test.sh [sanitizers]" >&2; exit 2 ;;
esac
