// SPDX-License-Identifier: Apache-2.0
#include "tests/parallel/golden_cases.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "halcyon/parallel/launch.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"
#include "tests/support/ranks.h"

namespace halcyon::test {

const at::Tensor& GoldenCase::operator[](const std::string& tensor) const {
  const auto found = tensors.find(tensor);
  if (found == tensors.end()) throw std::runtime_error(fmt::format("{} has no {}", name, tensor));
  return found->second;
}

bool GoldenCase::says(const std::string& word) const {
  return after(word) == "";
}

std::optional<std::string> GoldenCase::after(const std::string& word) const {
  for (size_t begin = 0; begin <= name.size();) {
    const auto end = std::min(name.find_first_of("_.", begin), name.size());
    const auto one = name.substr(begin, end - begin);
    begin = end + 1;
    if (!one.starts_with(word)) continue;
    const auto rest = one.substr(word.size());
    const auto digits = rest.substr(rest.starts_with("-") ? 1 : 0);
    if (digits.find_first_not_of("0123456789") == std::string::npos) return rest;
  }
  return {};
}

std::optional<int64_t> GoldenCase::number(const std::string& word) const {
  const auto digits = after(word);
  if (!digits || digits->empty()) return {};
  return std::stoll(*digits);
}

std::optional<std::vector<int64_t>> GoldenCase::per_axis(const std::string& word,
                                                         size_t axes) const {
  const auto digits = after(word);
  if (!digits || digits->empty()) return {};
  if (digits->size() != axes) return std::vector<int64_t>(axes, std::stoll(*digits));
  std::vector<int64_t> numbers;
  for (const char digit : *digits) numbers.push_back(digit - '0');
  return numbers;
}

std::vector<int64_t> GoldenCase::sizes(int64_t ranks, int64_t dim) const {
  if (has("sizes") && (*this)["sizes"].numel() == ranks) {
    const auto& lengths = (*this)["sizes"];
    return {lengths.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>() + ranks};
  }
  return parallel::split_sizes((*this)["x"].size(dim), ranks);
}

GoldenCases golden_cases(const std::string& file) {
  const auto content = golden("parallel/" + file);
  std::map<std::string, GoldenCase> cases;
  for (const auto& [key, tensor] : content.tensors) {
    const auto peer = key.find(".peer.");
    const auto end = peer != std::string::npos ? peer : key.rfind('.');
    cases[key.substr(0, end)].tensors.emplace(key.substr(end + 1), tensor);
  }
  const auto peers = nlohmann::json::parse(content.metadata.at("cases"));
  for (const auto& [name, peer] : peers.items()) {
    cases[name].peer = peer;
  }
  GoldenCases found{std::stoll(content.metadata.at("world_size")), {}};
  for (auto& [name, one] : cases) {
    one.name = name;
    found.cases.push_back(std::move(one));
  }
  return found;
}

std::vector<std::vector<int64_t>> cuts_of(int64_t length) {
  using parallel::split_sizes;
  return {{length},
          split_sizes(length, int64_t{2}),
          {1, length - 1},
          {0, length},
          split_sizes(length, int64_t{3}),
          {length - 3, 1, 2},
          split_sizes(length, int64_t{4}),
          {2, 0, length - 3, 1}};
}

at::Tensor part(const at::Tensor& x, const std::vector<int64_t>& sizes, int64_t rank, int64_t dim) {
  return x.split_with_sizes(sizes, dim)[rank];
}

at::Tensor leaf(const at::Tensor& x) {
  return x.detach().clone().requires_grad_();
}

at::Tensor joined(const Parts& parts, size_t i, int64_t dim) {
  std::vector<at::Tensor> all;
  for (const auto& rank : parts) all.push_back(rank.at(i).detach());
  return at::cat(all, dim);
}

at::Tensor summed(const Parts& parts, size_t i) {
  auto sum = parts.front().at(i).detach().clone();
  for (size_t rank = 1; rank < parts.size(); ++rank) sum += parts[rank].at(i).detach();
  return sum;
}

namespace {

void on_grid(int64_t rows, int64_t columns, const std::function<void(const Place&)>& f) {
  const TemporaryFolder folder;
  on_ranks(rows * columns, [&](const parallel::Group& all) {
    const auto row = all.rank() / columns, column = all.rank() % columns;
    const auto world = [&](int64_t rank, int64_t size, const std::string& store) {
      parallel::Launch launch;
      launch.rank = rank;
      launch.size = size;
      launch.store_file = (folder / store).string();
      launch.timeout = std::chrono::seconds(60);
      return parallel::World(launch);
    };
    const auto down = world(row, rows, fmt::format("column{}", column));
    const auto along = world(column, columns, fmt::format("row{}", row));
    f({all, down.group(), along.group()});
  });
}

}  // namespace

void solve(const std::vector<Problem>& problems) {
  std::map<std::pair<int64_t, int64_t>, std::vector<const Problem*>> by_grid;
  for (const auto& one : problems) by_grid[{one.rows, one.columns}].push_back(&one);
  for (const auto& [grid, all] : by_grid) {
    const auto [rows, columns] = grid;
    std::vector<Parts> parts(all.size(), Parts(rows * columns));
    on_grid(rows, columns, [&](const Place& place) {
      for (size_t i = 0; i < all.size(); ++i) {
        try {
          parts[i][place.all.rank()] = all[i]->work(place);
        } catch (const std::exception& e) {
          throw std::runtime_error(
              fmt::format("{}, rank {}: {}", all[i]->name, place.all.rank(), e.what()));
        }
      }
    });
    for (size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(fmt::format("{} on {} x {} ranks", all[i]->name, rows, columns));
      all[i]->check(parts[i]);
    }
  }
}

}  // namespace halcyon::test
