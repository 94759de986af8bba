// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/ScalarType.h>

#include <functional>
#include <string>

// What all benchmark programs share. google-benchmark keeps the list, the filter and the JSON file;
// the sampling (sampling.h) is our own: warm-up, repetitions, median and its absolute deviation.
namespace halcyon::bench {

// Something to time.
struct Case {
  std::function<void()> run;
  // Useful work of one run: what the arithmetic asks for, whatever the implementation does besides.
  double flops = 0, bytes = 0;
  at::ScalarType type = at::kFloat;  // whose peak the FLOPs are held against
  // Of what the last run has left: the largest error against the readable reference, as a share of
  // the allowed one. The program fails when it is above 1.
  std::function<double()> deviation;
};

// Names are row/pass or row/pass/precision, with pass fwd or fwd_bwd and precision fp32 or bf16;
// bench/table.py puts the rows beside the peer's. make is called when the case is chosen.
void add(const std::string& name, std::function<Case()> make);

// Runs what google-benchmark's arguments choose. The exit status of the program: not 0 when a
// result was off.
int run(int argc, char** argv);

}  // namespace halcyon::bench
