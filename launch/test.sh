#!/usr/bin/env bash
# Installs what is missing, builds everything and runs every test.
#   launch/test.sh              the suite
#   launch/test.sh sanitizers   the suite under AddressSanitizer and UBSan, the ranks as threads under ThreadSanitizer
set -euo pipefail
cd "$(dirname "$0")/.."
launch/dependencies.sh tests

suite() {  # suite PRESET TARGETS [ctest arguments]
  local preset=$1 targets=$2
  shift 2
  cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset" --target $targets
  ctest --preset "$preset" --no-tests=error "$@"
}

folders="tensor_tests files_tests autograd_tests dist_tests data_tests optim_tests checkpoint_tests layers_tests moe_tests model_tests train_tests simt_tests"

case "${1:-}" in
  "") suite release all ;;
  sanitizers)
    suite asan-ubsan "$folders" -E '^(mpi|app|launch|benchmarks)\.'
    suite tsan "dist_tests moe_tests model_tests" -R '^(dist|moe|model)\.'
    ;;
  *) echo "usage: launch/test.sh [sanitizers]" >&2; exit 2 ;;
esac
