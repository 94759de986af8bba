#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the peers of bench/peers/neighborhood.py, each into an environment of its own that borrows the project's torch:
# NATTEN 0.17.5 as pip builds it (CMake without a build type: no optimisation, no OpenMP), 0.17.5 with full flags, and
# 0.21.7, whose sources need no compiler without CUDA. What is there already is left alone.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)

usage() {
  cat <<TEXT
usage: bench/peers/setup.sh [--into FOLDER] [--python PYTHON] [--flags "FLAGS"]
  --into FOLDER    where the environments go (default: build/peers)
  --python PYTHON  an interpreter with torch, which the environments borrow (default: .venv/bin/python)
  --flags FLAGS    the compiler's flags of the rebuilt 0.17.5 (default: -O3 -march=native -fopenmp)
Takes about half an hour on one core; RUN="taskset -c 1" is put before the builds, JOBS is the compilers at a time.
TEXT
}

into=$here/build/peers python=$here/.venv/bin/python flags="-O3 -march=native -fopenmp"
while [ $# -gt 0 ]; do
  case $1 in
    --into|--python|--flags) [ $# -gt 1 ] || { echo "setup: $1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"; shift 2 ;;
    --help|-h) usage; exit 0 ;;
    *) echo "setup: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
done

for tool in cmake make g++; do
  command -v "$tool" >/dev/null || { echo "setup: $tool is missing; tools/setup.sh installs it" >&2; exit 1; }
done
site=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).resolve().parent.parent)' 2>/dev/null) ||
  { echo "setup: $python has no torch; 'make setup' installs it, or name another interpreter with --python" >&2; exit 1; }
mkdir -p "$into"

# install NAME VERSION [VARIABLE=VALUE]...
install() {
  local name=$1 version=$2 log=$into/$1.log
  shift 2
  if [ -e "$into/$name/installed" ]; then
    echo "setup: $name is there"
    return
  fi
  echo "setup: $name, log in $log"
  "$python" -m venv --clear "$into/$name"
  # An environment made inside another does not inherit from it; a .pth file lends it the project's packages.
  echo "$site" >"$("$into/$name/bin/python" -c 'import site; print(site.getsitepackages()[0])')/project.pth"
  local pip=("$into/$name/bin/python" -m pip install --disable-pip-version-check --no-deps)
  # --no-cache-dir: pip would take the wheel of one build for the other
  if ! { "${pip[@]}" wheel==0.45.1 &&
         env -u CFLAGS -u CXXFLAGS "NATTEN_N_WORKERS=${JOBS:-1}" "$@" ${RUN:-} "${pip[@]}" --verbose --no-cache-dir \
           --no-build-isolation --no-binary natten "natten==$version"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: $name could not be installed; all of the output is in $log" >&2
    exit 1
  fi
  touch "$into/$name/installed"
}

install natten-0.21.7 0.21.7
install natten-0.17.5-rebuilt 0.17.5 "CXXFLAGS=$flags"
install natten-0.17.5-pip 0.17.5
echo "setup: ready; $python bench/peers/neighborhood.py --into $into"
