// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace halcyon::bench {

// Mixed precision while it lives, as torch.autocast("cpu", torch.bfloat16): the weights stay fp32
// and their casts are made anew each time.
class Bf16Autocast {
 public:
  explicit Bf16Autocast(bool enabled = true);
  ~Bf16Autocast();
  Bf16Autocast(const Bf16Autocast&) = delete;
  Bf16Autocast& operator=(const Bf16Autocast&) = delete;

 private:
  bool enabled_;
};

}  // namespace halcyon::bench
