// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/analyser.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/sphere/regrid.h"

namespace halcyon::verify {
namespace {

std::shared_ptr<const state::Climatology> of_one_variable(
    std::shared_ptr<const state::Climatology> climatology) {
  HALCYON_CHECK(climatology && climatology->variables().size() == 1, "Analyser",
                "expected a climatology of one variable");
  return climatology;
}

}  // namespace

Network Network::without(int64_t station) const {
  HALCYON_CHECK(station >= 0 && station < size(), "Network", "expected a station below {}, got {}",
                size(), station);
  const at::Tensor number = at::arange(size());
  const at::Tensor kept = number.masked_select(number != station);
  Network out{stations, lon.index_select(0, kept), lat.index_select(0, kept),
              error_variance.index_select(0, kept)};
  out.stations.erase(out.stations.begin() + station);
  return out;
}

SparseMatrix observation_operator(const Grid& grid, const Network& network) {
  return std::visit(
      [&](const auto& one) { return bilinear_to_points(one, network.lon, network.lat); }, grid);
}

ClimatologyAnalyser::ClimatologyAnalyser(std::shared_ptr<const state::Climatology> climatology)
    : climatology_(of_one_variable(std::move(climatology))) {}

at::Tensor ClimatologyAnalyser::analyse(const Network&, const at::Tensor&,
                                        const std::vector<int64_t>& times) {
  return climatology_->at(times).select(1, 0);
}

PersistenceAnalyser::PersistenceAnalyser(std::shared_ptr<const state::Climatology> climatology,
                                         const state::Fields& fields, int64_t age)
    : climatology_(of_one_variable(std::move(climatology))),
      times_(fields.times),
      departures_(climatology_->anomaly(fields).select(1, 0)),
      age_(age) {
  HALCYON_CHECK(age > 0, "PersistenceAnalyser", "expected an age above 0 s, got {}", age);
}

std::string PersistenceAnalyser::name() const {
  return "persistence " + format_duration(age_);
}

at::Tensor PersistenceAnalyser::analyse(const Network&, const at::Tensor&,
                                        const std::vector<int64_t>& times) {
  at::Tensor out = climatology_->at(times).select(1, 0).clone();
  for (std::size_t t = 0; t < times.size(); ++t) {
    const auto found = std::lower_bound(times_.begin(), times_.end(), times[t] - age_);
    if (found != times_.end() && *found == times[t] - age_)
      out[static_cast<int64_t>(t)].add_(departures_[found - times_.begin()]);
    else
      out[static_cast<int64_t>(t)].fill_(std::numeric_limits<double>::quiet_NaN());
  }
  return out;
}

OptimalInterpolationAnalyser::OptimalInterpolationAnalyser(
    std::shared_ptr<const state::Climatology> climatology, const state::Fields& training,
    std::vector<int64_t> lags)
    : climatology_(of_one_variable(std::move(climatology))),
      interpolation_(climatology_->anomaly(training).select(1, 0), training.times,
                     std::move(lags)) {}

std::string OptimalInterpolationAnalyser::name() const {
  const std::size_t times = interpolation_.lags().size();
  return times == 1 ? "optimal interpolation"
                    : fmt::format("optimal interpolation, {} times", times);
}

at::Tensor OptimalInterpolationAnalyser::analyse(const Network& network, const at::Tensor& values,
                                                 const std::vector<int64_t>& times) {
  const SparseMatrix h = observation_operator(climatology_->grid(), network);
  std::vector<at::Tensor> departures;
  int64_t place = 0;
  for (const int64_t lag : lags()) {
    std::vector<int64_t> observed;
    for (const int64_t time : times) observed.push_back(time - lag);
    const at::Tensor expected = h.apply(climatology_->at(observed).select(1, 0));
    departures.push_back(values.select(1, place++) - expected);
  }
  const at::Tensor increment =
      interpolation_.analyse(h, network.error_variance, at::stack(departures, 1));
  return climatology_->at(times).select(1, 0) + increment;
}

}  // namespace halcyon::verify
