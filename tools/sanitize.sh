#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The C++ tests under ASan + UBSan, then the ones where threads meet under TSan.
# LibTorch itself is not instrumented: leaks in it are not reported, and TSan ignores what happens inside it.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$(pwd)
export ASAN_OPTIONS=detect_leaks=0:protect_shadow_gap=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="suppressions=$here/tests/support/tsan.supp ignore_noninstrumented_modules=1"
for preset in asan tsan; do
  cmake --preset $preset >/dev/null
  ninja -C build/$preset
done
ctest --test-dir build/asan --output-on-failure -LE 'large|process'
ctest --test-dir build/tsan --output-on-failure -L threads
