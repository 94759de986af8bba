// SPDX-License-Identifier: Apache-2.0
// One analysis with the production model: 1.5 G parameters in bfloat16, 98,304 pixels, 10^7
// observations; random weights. Prints the time of each part against its arithmetic, and the
// process's largest memory, which must stay below 8 GB.
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "bench/model/healda_flops.h"
#include "bench/model/part_times.h"
#include "bench/support/observations.h"
#include "bench/support/peak.h"
#include "bench/support/sampling.h"
#include "halcyon/base/progress.h"
#include "halcyon/model/healda.h"
#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/sphere/healpix.h"

namespace halcyon::bench {
namespace {

constexpr double kMostBytes = 8e9;
constexpr int64_t kIds = 500;  // of each table of embeddings
// Largest error of the model in bfloat16 and in place, relative to the largest value in float.
constexpr double kBound = 5e-2;

// The process's largest resident memory until now, bytes.
double peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return 1024 * std::strtod(line.c_str() + 6, nullptr);
  }
  return NAN;
}

// Weights are drawn in their type, one tensor after the other: there are never more bytes than
// that. Their deviations keep the activations near one.
HealDA make_model(const HealDAConfig& config, at::ScalarType type) {
  const torch::NoGradGuard no_grad;
  HealDA model(config, nn::Parameters::placeholders);
  for (auto& item : model->named_parameters()) {
    const auto& shape = item.value().sizes();
    const double fan_in = static_cast<double>(shape.size() > 1 ? shape[1] : 100);
    item.value().set_data(at::empty(shape, type).normal_(0, 1 / std::sqrt(fan_in)));
  }
  model->to(type);
  model->prepare_inference();
  return model;
}

struct Inputs {
  at::Tensor x, t, second, day;
  ObsContext observations;
};

Inputs make_inputs(const HealDAConfig& c, int64_t rows, at::ScalarType type) {
  const int64_t fine = healpix::npix(static_cast<int>(c.level_in));
  const int64_t pixels = c.time_length * healpix::npix(static_cast<int>(c.level_model));
  const auto counts = ragged_counts(pixels, rows, /*longest=*/25 * (rows / pixels + 8));
  const auto ids = [&] { return torch::randint(kIds, {rows}, torch::kInt); };
  Inputs in{torch::randn({1, c.in_channels, c.time_length, fine}, type),
            torch::zeros({1}, type),
            torch::rand({1, c.time_length}) * 86400,
            torch::rand({1, c.time_length}) * 365,
            {}};
  in.observations = {at::empty({rows}, type).normal_(),
                     at::empty({rows, c.obs_meta_dim}, type).normal_(),
                     ids(),
                     ids(),
                     ids(),
                     counts_to_cu_seqlens(counts),
                     counts.max().item<int64_t>()};
  return in;
}

at::Tensor analyse(HealDA& model, const Inputs& in) {
  return model->forward(in.x, in.t, in.second, in.day, in.observations);
}

// The same widths, one layer and few pixels, in bfloat16 and in place as below, against float by
// the path that training takes.
double small_error(HealDAConfig config) {
  config.num_layers = 1;
  config.level_model = 2;
  config.level_in = 3;
  auto narrow = make_model(config, torch::kBFloat16);
  const auto in = make_inputs(config, 50000, torch::kBFloat16);
  at::Tensor ours;
  {
    const torch::NoGradGuard no_grad;
    ours = analyse(narrow, in).to(torch::kFloat);
  }
  narrow->to(torch::kFloat);
  narrow->prepare_inference();
  auto wide = in;
  wide.x = in.x.to(torch::kFloat);
  wide.t = in.t.to(torch::kFloat);
  wide.observations = in.observations.to(torch::kFloat);
  const auto expected = analyse(narrow, wide).detach();
  return ((ours - expected).abs().max() / expected.abs().max()).item<double>();
}

void print_parts(const HealDAConfig& config, int64_t rows, double seconds) {
  const auto& peak = machine_peak();
  const double bound = std::max(peak.fp32, has_fast_bf16() ? peak.bf16 : 0.0);
  std::printf("%-28s %10s %8s %10s %12s %8s\n", "part", "s", "share", "TFLOP", "GFLOP/s",
              "of peak");
  auto times = PartTimes::seconds();
  double flops = 0, other = seconds;
  const auto line = [&](const std::string& name, double time, double count) {
    std::printf("%-28s %10.2f %7.1f%% ", name.c_str(), time, 100 * time / seconds);
    if (count > 0) {
      std::printf("%10.3f %12.1f %7.0f%%", 1e-12 * count, 1e-9 * count / time,
                  100 * count / time / bound);
    }
    std::printf("\n");
  };
  for (const auto& [name, count] : healda_flops(config, rows)) {
    line(name, times[name], count);
    flops += count;
    other -= times[name];
    times.erase(name);
  }
  for (const auto& [name, time] : times) {
    line(name, time, 0);
    other -= time;
  }
  line("other", other, 0);
  line("all", seconds, flops);
  std::printf("peak: %.1f GFLOP/s in fp32, %.1f in bf16, measured in this process, %d threads\n",
              1e-9 * peak.fp32, 1e-9 * peak.bf16, at::get_num_threads());
}

int run(int64_t layers, int64_t rows, int64_t level) {
  torch::manual_seed(1);
  HealDAConfig config;
  const double error = small_error(config);
  std::printf("one layer, 192 pixels: largest error of bf16 %.2g of the largest value (bound %g)\n",
              error, kBound);
  if (!(error <= kBound)) return 1;

  config.num_layers = layers;
  config.level_model = level;
  config.level_in = level + 1;
  HealDA model(nullptr);
  Inputs in;
  const double drawing = seconds_of([&] {
    model = make_model(config, torch::kBFloat16);
    in = make_inputs(config, rows, torch::kBFloat16);
  });
  int64_t parameters = 0;
  for (const auto& p : model->parameters()) parameters += p.numel();
  std::printf("%.3f G parameters, %ld pixels, %ld observations: drawn in %.0f s, %.2f GB\n",
              1e-9 * static_cast<double>(parameters),
              config.time_length * healpix::npix(static_cast<int>(level)), rows, drawing,
              1e-9 * peak_memory());
  std::fflush(stdout);

  const torch::NoGradGuard no_grad;
  Progress progress("analysis", layers * config.time_length);
  const PartTimes times([&](const std::string& part) {
    // a frame at a time on production's grid
    if (part == "halcyon::spatial_attention") progress.advance();
  });
  at::Tensor y;
  const double seconds = seconds_of([&] { y = analyse(model, in); });
  const double memory = peak_memory();
  progress.finish();
  const bool finite = y.isfinite().all().item<bool>();
  std::printf("analysis (%ld channels, %ld pixels): %.1f s, %s, largest memory %.2f GB\n",
              y.size(1), y.size(3), seconds, finite ? "finite" : "NOT FINITE", 1e-9 * memory);
  print_parts(config, rows, seconds);
  return finite && memory < kMostBytes ? 0 : 1;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  int64_t layers = 32, rows = 10'000'000, level = 5;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    int64_t* value = option == "--layers"         ? &layers
                     : option == "--observations" ? &rows
                     : option == "--level"        ? &level
                                                  : nullptr;
    char* end = nullptr;
    const long given = value && i + 1 < argc ? std::strtol(argv[++i], &end, 10) : -1;
    if (!end || *end != '\0' || given < (value == &level ? 1 : value == &rows ? 0 : 1)) {
      std::fprintf(stderr,
                   "usage: production [--layers 32] [--observations 10000000] [--level 5]\n"
                   "One analysis with HealDA's production widths; most of an hour on two cores.\n");
      return option == "--help" || option == "-h" ? 0 : 2;
    }
    *value = given;
  }
  return halcyon::bench::run(layers, rows, level);
}
