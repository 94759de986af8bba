// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

namespace halcyon::bench {

// Seconds of one run of something, from several runs after a warm-up.
struct Timing {
  double median, mad;  // mad: median absolute deviation from the median
  int runs;
};

// At least five runs, more while they are short; three where one takes over two seconds.
Timing measure(const std::function<void()>& run);

// The seconds that one run takes.
double seconds_of(const std::function<void()>& run);

double median_of(std::vector<double> values);

}  // namespace halcyon::bench
