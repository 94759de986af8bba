#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Real observations to an analysis and its scores, with the weights shipped in demo/. Argument: the build folder.
set -euo pipefail
cd "$(dirname "$0")/.."
halcyon=${1:-build}/bin/halcyon
echo "Assimilating the city observations of demo/north_america/analyze.yaml"
"$halcyon" analyze demo/north_america/analyze.yaml
echo
echo "Scores on 2014, beside climatology and optimal interpolation (demo/north_america/evaluate.yaml)"
"$halcyon" evaluate demo/north_america/evaluate.yaml
