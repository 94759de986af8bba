#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format and clang-tidy over the sources that git knows. Arguments: files (default: all).
# clang-tidy is a pinned wheel: since LLVM 22 it leaves system headers alone, about 10 s a file where Debian's 14 takes
# 28 even with a precompiled header.
set -euo pipefail
cd "$(dirname "$0")/.."
files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(git ls-files '*.h' '*.cpp')
clang-format --dry-run -Werror "${files[@]}"
tidy=.venv/bin/clang-tidy
[ -x $tidy ] || .venv/bin/python -m pip install --quiet clang-tidy==23.1.4
# clang cannot read g++'s precompiled header: a configuration without it, in which nothing is built
cmake -S . -B build/lint -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DHALCYON_BUILD_BENCH=ON >/dev/null
# g++'s omp.h, which ATen's headers want
omp=$(dirname "$(g++ -print-file-name=include/omp.h)")
printf '%s\n' "${files[@]}" | { grep '\.cpp$' || true; } | { grep -v -e '^tests/fuzz/' -e '^python/' -e tsan_ || true; } |
  xargs -r -P "$(nproc)" -n 1 "$tidy" --quiet -p build/lint --extra-arg=-idirafter"$omp" --extra-arg=-Wno-deprecated-declarations
