#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format and clang-tidy over the sources that git knows. Arguments: files (default: all).
set -euo pipefail
cd "$(dirname "$0")/.."
files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(git ls-files '*.h' '*.cpp')
clang-format --dry-run -Werror "${files[@]}"
# clang cannot read g++'s precompiled header: a configuration without it, in which nothing is built, and clang's own
cmake -S . -B build/lint -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DHALCYON_BUILD_BENCH=ON >/dev/null
pch=build/lint/lint.pch
if [ ! -e $pch ]; then
  printf '#include <ATen/ATen.h>\n#include <fmt/format.h>\n#include <nlohmann/json.hpp>\n' >build/lint/lint.h
  mapfile -t flags < <(python3 - build/lint/compile_commands.json <<'PY'
import json, shlex, sys
command = next(c["command"] for c in json.load(open(sys.argv[1])) if c["file"].endswith("halcyon/ops/rope.cpp"))
words = shlex.split(command.split(" -o ")[0])
while words[0] in ("env", "-E") or not words[0].startswith("-"):
    words.pop(0)
print("\n".join(w for w in words if not w.startswith("-W")))
PY
  )
  (cd build/lint && clang++ "${flags[@]}" -x c++-header lint.h -o lint.pch)
fi
printf '%s\n' "${files[@]}" | { grep '\.cpp$' || true; } | { grep -v -e '^tests/fuzz/' -e '^python/' -e tsan_ || true; } |
  xargs -r -P "$(nproc)" -n 2 clang-tidy --quiet -p build/lint --extra-arg=-Xclang --extra-arg=-include-pch \
    --extra-arg=-Xclang --extra-arg="$PWD/$pch"
