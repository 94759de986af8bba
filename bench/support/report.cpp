// SPDX-License-Identifier: Apache-2.0
#include "bench/support/report.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>

#include "bench/support/ceilings.h"
#include "bench/support/peak.h"

namespace halcyon::bench {
namespace {

// Nothing where the case has no such work.
std::string rate(double value) {
  return value > 0 ? fmt::format("{:.1f}", value) : "-";
}

}  // namespace

bool Report::ReportContext(const Context&) {
  const auto& peak = machine_peak();
  const auto& ceilings = machine_ceilings();
  GetOutputStream() << fmt::format(
                           "{} threads, {}; peak {:.1f} GFLOP/s fp32, {:.1f} bf16, {:.1f} GB/s\n"
                           "on registers {:.1f} GFLOP/s fp32 in AVX2, {:.1f} in AVX-512, {:.1f} in "
                           "pairs of bf16\n"
                           "{:<52}{:>11}{:>9}{:>6}{:>10}{:>8}{:>9}{:>8}\n",
                           at::get_num_threads(), at::get_cpu_capability(), peak.fp32 * 1e-9,
                           peak.bf16 * 1e-9, peak.bandwidth * 1e-9, ceilings.fma_avx2 * 1e-9,
                           ceilings.fma_avx512 * 1e-9, ceilings.pairs_bf16 * 1e-9, "", "median ms",
                           "mad", "runs", "GFLOP/s", "GB/s", "of peak", "error")
                    << std::flush;
  return true;
}

void Report::ReportRuns(const std::vector<Run>& runs) {
  for (const auto& run : runs) {
    const auto& name = run.run_name.function_name;
    if (run.error_occurred && run.counters.empty()) {
      GetOutputStream() << fmt::format("{:<52} {}\n", name, run.error_message) << std::flush;
      continue;
    }
    const auto of = [&](const char* counter) { return run.counters.at(counter).value; };
    GetOutputStream() << fmt::format(
                             "{:<52}{:>11.3f}{:>9.3f}{:>6.0f}{:>10}{:>8}{:>8.0f}%{:>8.2g}\n", name,
                             run.GetAdjustedRealTime(), of("mad_ms"), of("runs"),
                             rate(of("gflops")), rate(of("gbytes")), 100 * of("of_peak"),
                             of("deviation"))
                      << (run.error_occurred ? run.error_message + "\n" : "") << std::flush;
  }
}

}  // namespace halcyon::bench
