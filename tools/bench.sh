#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the benchmarks, then prints them beside the peer's. Argument: a filter, a regular expression over
# names (default: all). BUILD is the build folder, JOBS the compilers at a time, RUN a prefix (RUN="taskset -c 0").
# The JSON files stay in $BUILD/bench/results.
set -euo pipefail
cd "$(dirname "$0")/.."
filter=${1:-.} build=${BUILD:-build} status=0
cmake -S . -B "$build" -G Ninja -DHALCYON_BUILD_BENCH=ON >/dev/null
${RUN:-} ninja -C "$build" -j "${JOBS:-$(nproc)}" benchmarks
results=$build/bench/results
rm -rf "$results"
mkdir -p "$results"
for program in "$build"/bench/*/bench_*; do
  # the peak is measured anew by each program: none that has nothing to run
  [ -n "$("$program" --benchmark_list_tests --benchmark_filter="$filter" 2>/dev/null)" ] || continue
  ${RUN:-} "$program" --benchmark_filter="$filter" --benchmark_out="$results/$(basename "$program").json" || status=1
done
python3 bench/table.py "$results"
exit $status
