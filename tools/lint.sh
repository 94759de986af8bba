#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format and clang-tidy over the sources that git knows. Arguments: files (default: all).
set -euo pipefail
cd "$(dirname "$0")/.."
files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(git ls-files '*.h' '*.cpp')
clang-format --dry-run -Werror "${files[@]}"
# clang cannot read g++'s precompiled header: a configuration of its own, nothing is built in it
cmake -S . -B build/lint -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
printf '%s\n' "${files[@]}" | { grep '\.cpp$' || true; } | { grep -v -e '^tests/fuzz/' -e '^python/' || true; } |
  xargs -r -P "$(nproc)" -n 2 clang-tidy --quiet -p build/lint
