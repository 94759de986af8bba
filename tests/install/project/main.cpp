// SPDX-License-Identifier: Apache-2.0
// A user's program: the centre of a pixel, and an error that names its function.
#include <cmath>
#include <cstdio>

#include <torch/torch.h>

#include "halcyon/base/error.h"
#include "halcyon/sphere/healpix.h"

int main() {
  const auto [lon, lat] = halcyon::healpix::pix2ang(0, torch::tensor(4));
  if (std::abs(lat.item<double>()) > 1e-12) return 1;  // base pixel 4 is centred on the equator
  try {
    halcyon::healpix::npix(-1);
  } catch (const halcyon::Error& e) {
    std::puts(e.what());
    return 0;
  }
  return 2;
}
