#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the peers of bench/peers/neighborhood.py and healda.py, each into an environment of its own that borrows the
# project's torch: NATTEN 0.17.5 as pip builds it (CMake without a build type: no optimisation, no OpenMP), 0.17.5 with full
# flags, 0.21.7, whose sources need no compiler without CUDA, PhysicsNeMo 2.2.2, which is Python, with the three packages
# that its layers call, and CREDIT's sources for bench/parallel. What is there already is left alone.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)

usage() {
  cat <<TEXT
usage: bench/peers/setup.sh [--into FOLDER] [--python PYTHON] [--flags "FLAGS"] [PEER]...
  --into FOLDER    where the environments go (default: build/peers)
  --python PYTHON  an interpreter with torch, which the environments borrow (default: .venv/bin/python)
  --flags FLAGS    the compiler's flags of the rebuilt 0.17.5 (default: -O3 -march=native -fopenmp)
  PEER             these only (default: all):
    physicsnemo            nvidia-physicsnemo 2.2.2, einops, jaxtyping, timm; for healda.py; a minute
    credit                 miles-credit 2026.2.0 without what it needs; for bench/parallel/halo.py; a minute
    natten-0.21.7          for neighborhood.py, like all of natten; a minute
    natten-0.17.5-rebuilt  compiled with FLAGS; a quarter of an hour on one core
    natten-0.17.5-pip      compiled as pip does; a quarter of an hour on one core
RUN="taskset -c 1" is put before the builds, JOBS is the compilers at a time.
TEXT
}

all=(physicsnemo credit natten-0.21.7 natten-0.17.5-rebuilt natten-0.17.5-pip)
into=$here/build/peers python=$here/.venv/bin/python flags="-O3 -march=native -fopenmp" peers=()
while [ $# -gt 0 ]; do
  case $1 in
    --into|--python|--flags) [ $# -gt 1 ] || { echo "setup: $1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"; shift 2 ;;
    --help|-h) usage; exit 0 ;;
    *) [[ " ${all[*]} " == *" $1 "* ]] || { echo "setup: unknown argument $1" >&2; usage >&2; exit 2; }
      peers+=("$1"); shift ;;
  esac
done
[ ${#peers[@]} -gt 0 ] || peers=("${all[@]}")

if [[ " ${peers[*]}" == *" natten-0.17.5"* ]]; then
  for tool in cmake make g++; do
    command -v "$tool" >/dev/null || { echo "setup: $tool is missing; tools/setup.sh installs it" >&2; exit 1; }
  done
fi
site=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).resolve().parent.parent)' 2>/dev/null) ||
  { echo "setup: $python has no torch; 'make setup' installs it, or name another interpreter with --python" >&2; exit 1; }
mkdir -p "$into"

# install NAME COMMAND...: a new environment, then COMMAND with its pip in the array pip
install() {
  local name=$1 log=$into/$1.log
  shift
  if [ -e "$into/$name/installed" ]; then
    echo "setup: $name is there"
    return
  fi
  echo "setup: $name, log in $log"
  "$python" -m venv --clear "$into/$name"
  # An environment made inside another does not inherit from it; a .pth file lends it the project's packages.
  echo "$site" >"$("$into/$name/bin/python" -c 'import site; print(site.getsitepackages()[0])')/project.pth"
  local pip=("$into/$name/bin/python" -m pip install --disable-pip-version-check --no-deps)
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: $name could not be installed; all of the output is in $log" >&2
    exit 1
  fi
  touch "$into/$name/installed"
}

# natten VERSION [VARIABLE=VALUE]...
natten() {
  local version=$1
  shift
  # --no-cache-dir: pip would take the wheel of one build for the other
  "${pip[@]}" wheel==0.45.1 &&
    env -u CFLAGS -u CXXFLAGS "NATTEN_N_WORKERS=${JOBS:-1}" "$@" ${RUN:-} "${pip[@]}" --verbose --no-cache-dir \
      --no-build-isolation --no-binary natten "natten==$version"
}

credit() {  # its halo exchange asks for torch alone
  "${pip[@]}" miles-credit==2026.2.0
}

physicsnemo() {  # without torch and what else it names: see bench/peers/absent.py
  "${pip[@]}" nvidia-physicsnemo==2.2.2 einops==0.8.2 jaxtyping==0.3.11 timm==1.0.31
}

for peer in "${peers[@]}"; do
  case $peer in
    physicsnemo|credit) install "$peer" "$peer" ;;
    natten-0.21.7) install "$peer" natten 0.21.7 ;;
    natten-0.17.5-rebuilt) install "$peer" natten 0.17.5 "CXXFLAGS=$flags" ;;
    natten-0.17.5-pip) install "$peer" natten 0.17.5 ;;
  esac
done
scripts=()
declare -A peer_of=([peers/neighborhood]=natten [peers/healda]=physicsnemo [parallel/halo]=credit [parallel/reshard]=physicsnemo)
for script in peers/neighborhood peers/healda parallel/halo parallel/reshard; do
  [[ " ${peers[*]}" == *" ${peer_of[$script]}"* ]] && scripts+=("$python bench/$script.py --into $into")
done
printf 'setup: ready; %s\n' "${scripts[@]}"
