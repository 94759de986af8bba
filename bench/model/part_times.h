// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/record_function.h>

#include <functional>
#include <map>
#include <string>

namespace halcyon::bench {

// While it lives, adds up the time that this process spends in the scopes that the model marks for
// profilers (RECORD_USER_SCOPE), in seconds by name, and reports the end of each. One at a time.
class PartTimes {
 public:
  explicit PartTimes(std::function<void(const std::string& part)> report);
  ~PartTimes();
  PartTimes(const PartTimes&) = delete;
  PartTimes& operator=(const PartTimes&) = delete;

  static const std::map<std::string, double>& seconds();

 private:
  at::CallbackHandle handle_;
};

}  // namespace halcyon::bench
