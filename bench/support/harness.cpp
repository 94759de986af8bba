// SPDX-License-Identifier: Apache-2.0
#include "bench/support/harness.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "bench/support/ceilings.h"
#include "bench/support/peak.h"
#include "bench/support/report.h"
#include "bench/support/sampling.h"

namespace halcyon::bench {
namespace {

int failures = 0;

void time_case(benchmark::State& state, const Case& c) {
  const auto& peak = machine_peak();
  Timing timing{};
  for (auto _ : state) {
    timing = measure(c.run);
    state.SetIterationTime(timing.median);
  }
  const double deviation = c.deviation();
  // the least time that the machine allows, by arithmetic or by memory, over the time taken
  const double bound = std::max(c.flops / peak.flops(c.type), c.bytes / peak.bandwidth);
  state.counters["mad_ms"] = timing.mad * 1e3;
  state.counters["runs"] = timing.runs;
  state.counters["gflops"] = c.flops / timing.median * 1e-9;
  state.counters["gbytes"] = c.bytes / timing.median * 1e-9;
  state.counters["of_peak"] = bound / timing.median;
  state.counters["deviation"] = deviation;
  if (!(deviation <= 1)) {
    ++failures;
    state.SkipWithError(
        fmt::format("wrong result: {:.3g} of the allowed error", deviation).c_str());
  }
}

// A case that cannot run fails like one that is wrong; the others go on.
void guarded(benchmark::State& state, const std::function<Case()>& make) {
  try {
    time_case(state, make());
  } catch (const std::exception& e) {
    ++failures;
    const std::string_view message = e.what();  // torch's has a backtrace from the second line on
    state.SkipWithError(std::string(message.substr(0, message.find('\n'))).c_str());
  }
}

// What the JSON file says of the machine.
void add_context() {
  const auto& peak = machine_peak();
  benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
  benchmark::AddCustomContext("cpu_capability", at::get_cpu_capability());
  benchmark::AddCustomContext("peak_fp32_gflops", fmt::format("{:.1f}", peak.fp32 * 1e-9));
  benchmark::AddCustomContext("peak_bf16_gflops", fmt::format("{:.1f}", peak.bf16 * 1e-9));
  const auto& ceilings = machine_ceilings();
  benchmark::AddCustomContext("fma_avx2_gflops", fmt::format("{:.1f}", ceilings.fma_avx2 * 1e-9));
  benchmark::AddCustomContext("fma_avx512_gflops",
                              fmt::format("{:.1f}", ceilings.fma_avx512 * 1e-9));
  benchmark::AddCustomContext("pairs_bf16_gflops",
                              fmt::format("{:.1f}", ceilings.pairs_bf16 * 1e-9));
  benchmark::AddCustomContext("peak_gbytes", fmt::format("{:.1f}", peak.bandwidth * 1e-9));
}

}  // namespace

void add(const std::string& name, std::function<Case()> make) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [make](benchmark::State& state) { guarded(state, make); })
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

int run(int argc, char** argv) {
  const bool listing = std::any_of(argv, argv + argc, [](std::string_view argument) {
    return argument.starts_with("--benchmark_list_tests");
  });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (!listing) add_context();
  Report report;
  benchmark::RunSpecifiedBenchmarks(&report);
  benchmark::Shutdown();
  return failures == 0 ? 0 : 1;
}

}  // namespace halcyon::bench
