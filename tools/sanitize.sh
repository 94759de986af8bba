#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The C++ tests under ASan + UBSan, then those of the rooms with parallel loops under TSan with four threads.
# Arguments: presets (default: asan tsan). LibTorch is not instrumented: leaks in it are not reported.
set -euo pipefail
cd "$(dirname "$0")/.."
presets=("$@")
[ ${#presets[@]} -gt 0 ] || presets=(asan tsan)
export ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0 UBSAN_OPTIONS=print_stacktrace=1
for preset in "${presets[@]}"; do
  cmake --preset "$preset" >/dev/null
  ninja -C "build/$preset"
done
for preset in "${presets[@]}"; do
  case $preset in
    asan) OMP_NUM_THREADS=2 ctest --test-dir build/asan --output-on-failure -LE large -E install_ ;;
    # a death test forks: not with TSan; ignore_noninstrumented_modules: what LibTorch does inside itself
    tsan) OMP_NUM_THREADS=4 TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 \
      ctest --test-dir build/tsan --output-on-failure -LE large -R '^(base|sphere|ops|nn|parallel|obs|plots|assimilation)_' ;;
  esac
done
