// SPDX-License-Identifier: Apache-2.0
#include "tests/apps/small_runs.h"

#include "halcyon/base/files.h"

namespace halcyon::test {

SmallRuns::SmallRuns() {
  write_text(file("analyze.yaml"),
             "system: system.yaml\n"
             "checkpoint: weights.safetensors\n"
             "output: analysis\n"
             "times: {start: 2014-02-01T00, end: 2014-02-01T06, step: 6h}\n"
             "observations: {files: city_t2m.csv}\n"
             "plots: {enabled: false}\n");
  write_text(file("train.yaml"),
             "system: system.yaml\n"
             "weights: trained.safetensors\n" +
                 model() +
                 "simulation:\n"
                 "  networks:\n"
                 "    box: {west: 240, east: 275, south: 25, north: 50}\n"
                 "    fewest: 5\n"
                 "    most: 20\n"
                 "  focus: {west: 245, east: 270, south: 30, north: 45}\n"
                 "batch: {networks: 1, fields: 2}\n"
                 "training:\n"
                 "  output: training\n"
                 "  steps: 3\n"
                 "  ema: {decay: 0.5}\n"
                 "  checkpoints: {every: 1, keep: 10}\n"
                 "  log: {tensorboard: false}\n");
  write_text(file("evaluate.yaml"),
             "system: system.yaml\n"
             "checkpoint: weights.safetensors\n"
             "stations: {sites: city_stations.csv, reports: city_t2m.csv}\n"
             "real_period: {start: 2014-01-01, end: 2014-03-01}\n"
             "focus: {west: 245, east: 270, south: 30, north: 45}\n"
             "random_sites: {count: 9, box: {west: 242, east: 273, south: 27, north: 48}}\n"
             "output: scores.csv\n");
}

std::string SmallRuns::quoted(const std::string& name) const {
  return "'" + file(name).string() + "'";
}

Result SmallRuns::run(const std::string& command, std::string more,
                      const std::string& before) const {
  for (auto at = more.find("{}"); at != std::string::npos; at = more.find("{}"))
    more.replace(at, 2, folder().string());
  return halcyon_says(command + " " + quoted(command + ".yaml") + " " + more, "2>&1", before);
}

}  // namespace halcyon::test
