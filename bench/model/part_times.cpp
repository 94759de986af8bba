// SPDX-License-Identifier: Apache-2.0
#include "bench/model/part_times.h"

#include <chrono>
#include <memory>
#include <utility>

namespace halcyon::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Begun : at::ObserverContext {
  Clock::time_point time = Clock::now();
};

std::map<std::string, double>& sums() {
  static std::map<std::string, double> seconds;
  return seconds;
}

std::function<void(const std::string&)>& on_end() {
  static std::function<void(const std::string&)> report;
  return report;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& /*function*/) {
  return std::make_unique<Begun>();
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  const auto begun = static_cast<const Begun*>(context)->time;
  const std::string name = function.name();
  sums()[name] += std::chrono::duration<double>(Clock::now() - begun).count();
  on_end()(name);
}

}  // namespace

PartTimes::PartTimes(std::function<void(const std::string&)> report) {
  on_end() = std::move(report);
  sums().clear();
  handle_ = at::addGlobalCallback(
      at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::USER_SCOPE}));
}

PartTimes::~PartTimes() {
  at::removeCallback(handle_);
}

const std::map<std::string, double>& PartTimes::seconds() {
  return sums();
}

}  // namespace halcyon::bench
