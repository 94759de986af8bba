#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real observations to an analysis and its scores, with the weights shipped in demo/. Argument: the build folder.
set -euo pipefail
cd "$(dirname "$0")/.."
halcyon=${1:-build}/bin/halcyon
scores=out/north_america/scores.txt
echo "Assimilating the city observations of demo/north_america/analyze.yaml"
"$halcyon" analyze demo/north_america/analyze.yaml
echo
# 16,000 analyses, some two minutes: once for these weights, data and programs
inputs=("$halcyon" "${1:-build}/halcyon/libhalcyon.so" demo/north_america tools/demo.sh)
if [ -s "$scores" ] && [ -z "$(find -L "${inputs[@]}" -newer "$scores" -print -quit)" ]; then
  echo "Scores on 2014, of $(date -r "$scores" '+%F %H:%M'): weights, data and programs are those of then ($scores)"
  cat "$scores"
else
  echo "Scores on 2014, beside climatology and optimal interpolation (demo/north_america/evaluate.yaml)"
  "$halcyon" evaluate demo/north_america/evaluate.yaml | tee "$scores.part"
  mv "$scores.part" "$scores"
fi
