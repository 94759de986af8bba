// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/agreement.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "halcyon/base/error.h"
#include "halcyon/base/recycled.h"
#include "halcyon/parallel/companion.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

// The words of a header, before its values.
enum Word { kMagic, kCounter, kRefused, kSameCount, kEachCount, kName };
constexpr int64_t kNameWords = 4, kValues = kName + kNameWords;
constexpr int64_t kMagicNumber = 0x48414c4359304e31;  // another program, or another version
constexpr int64_t kTextBytes = 1024;

// One count for all groups of this process, which every agreement lifts to the highest of its
// ranks.
std::atomic<int64_t> counter{0};

constexpr int64_t kWord = sizeof(int64_t);

// Each attached tensor begins on a line of the cache.
int64_t padded(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

bool is_gloo(const Group& group) {
  return group.has_backend(c10::kCPU) && group.backend(c10::kCPU)->getBackendName() == "gloo";
}

at::Tensor with_attachments(const at::Tensor& header, const std::vector<at::Tensor>& data) {
  int64_t bytes = 0;
  for (const auto& one : data) bytes += padded(static_cast<int64_t>(one.nbytes()));
  if (bytes == 0) return header;
  HALCYON_ASSERT(bytes <= Agreement::kAttached);
  const auto message = recycled_empty({Agreement::kWords + bytes / kWord}, header.options());
  message.narrow(0, 0, Agreement::kWords).copy_(header);
  int64_t at = Agreement::kWords * kWord;
  for (const auto& one : data) {
    const auto size = static_cast<int64_t>(one.nbytes());
    message.view(at::kByte)
        .narrow(0, at, size)
        .view(one.scalar_type())
        .view(one.sizes())
        .copy_(one);
    at += padded(size);
  }
  return message;
}

c10::DeviceType header_device(const Group& group) {
  return group.has_backend(c10::kCPU) ? c10::kCPU : c10::kCUDA;
}

}  // namespace

Agreement::Agreement(Group group, std::string operation)
    : group_(std::move(group)), operation_(std::move(operation)) {}

Agreement::~Agreement() = default;

void Agreement::prepare(const std::function<void()>& f) {
  if (group_.size() == 1) return f();
  try {
    f();
    constexpr int64_t kMost = kWords - kValues;
    const auto told = static_cast<int64_t>(same_.size() + each_.size());
    HALCYON_CHECK(told <= kMost, operation_,
                  "expected tensors of fewer axes: the ranks compare at most {} sizes and options, "
                  "got {}",
                  kMost, told);
  } catch (const Error& e) {
    refusal_ = e;
  } catch (const c10::Error& e) {
    refusal_.emplace(ErrorKind::argument,
                     fmt::format("[{}] {}", operation_, e.what_without_backtrace()));
  }
}

void Agreement::same(const char* name, int64_t value) {
  same_.push_back({name, Shown::number, value});
}

void Agreement::same(const char* name, double value) {
  int64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  same_.push_back({name, Shown::real, bits});
}

void Agreement::same(const char* name, at::ScalarType value) {
  same_.push_back({name, Shown::dtype, static_cast<int64_t>(value)});
}

void Agreement::same_bits(const char* name, const void* data, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (size_t i = 0; i < bytes; ++i) {
    hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3;
  }
  same_.push_back({name, Shown::bits, static_cast<int64_t>(hash)});
}

void Agreement::same(const char* name, at::IntArrayRef values) {
  same(fmt::format("number of values of {}", name).c_str(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i)
    same(fmt::format("{}[{}]", name, i).c_str(), values[i]);
}

void Agreement::same(const char* name, const std::string& value) {
  same_bits(name, value.data(), value.size());
}

void Agreement::same_but(const char* name, const at::Tensor& tensor, int64_t dim) {
  same(fmt::format("number of axes of {}", name).c_str(), tensor.dim());
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (i != dim) same(fmt::format("size of axis {} of {}", i, name).c_str(), tensor.size(i));
  }
  same(fmt::format("dtype of {}", name).c_str(), tensor.scalar_type());
  same_.push_back({fmt::format("device of {}", name), Shown::device,
                   static_cast<int64_t>(tensor.device().type())});
}

size_t Agreement::each(int64_t value) {
  each_.push_back(value);
  return each_.size() - 1;
}

void Agreement::post() {
  if (group_.size() == 1) return;
  meet(group_, operation_);
  const auto device = header_device(group_);
  auto mine = at::zeros({kWords}, at::kLong);
  auto* const words = mine.mutable_data_ptr<int64_t>();
  if (refusal_) same_.clear(), each_.clear();
  HALCYON_ASSERT(kValues + same_.size() + each_.size() <= kWords);
  words[kMagic] = kMagicNumber;
  words[kCounter] = ++counter;
  words[kRefused] = refusal_ ? 1 + static_cast<int64_t>(refusal_->kind()) : 0;
  words[kSameCount] = static_cast<int64_t>(same_.size());
  words[kEachCount] = static_cast<int64_t>(each_.size());
  std::memcpy(words + kName, operation_.data(),
              std::min<size_t>(operation_.size(), kNameWords * sizeof(int64_t) - 1));
  int64_t at = kValues;
  for (const auto& field : same_) words[at++] = field.value;
  for (const auto value : each_) words[at++] = value;

  exchange_ = std::make_unique<Exchange>(group_, operation_, kHeaderTag);
  mine = mine.to(device);
  const auto me = group_.rank();
  for (int64_t r = 0; r < group_.size(); ++r) {
    // gloo leaves the rest of a buffer as it is where a message is shorter
    const auto most = is_neighbour(r) && is_gloo(group_) ? kWords + kAttached / kWord : kWords;
    headers_.push_back(r == me ? mine : recycled_empty({most}, mine.options()));
    if (r != me) exchange_->receive(r, headers_.back());
  }
  for (int64_t r = 0; r < group_.size(); ++r) {
    if (r != me) exchange_->send(r, refusal_ ? mine : with_attachments(mine, attachments_[r]));
  }
  exchange_->post();
}

bool Agreement::is_neighbour(int64_t rank) const {
  const auto apart = std::abs(rank - group_.rank());
  return apart == 1 || apart == group_.size() - 1;
}

bool Agreement::can_attach(const at::Tensor& data) const {
  return group_.size() > 1 && data.device().is_cpu() && is_gloo(group_);
}

void Agreement::attach(int64_t peer, std::vector<at::Tensor> data) {
  HALCYON_ASSERT(is_neighbour(peer));
  attachments_[peer] = std::move(data);
}

at::Tensor Agreement::attached(int64_t peer, at::IntArrayRef sizes, at::ScalarType type) {
  int64_t elements = 1;
  for (const auto size : sizes) elements *= size;
  const auto bytes = elements * static_cast<int64_t>(c10::elementSize(type));
  auto& at = read_[peer];
  const auto piece = headers_[peer].narrow(0, kWords + at / kWord, padded(bytes) / kWord);
  at += padded(bytes);
  return piece.view(at::kByte).narrow(0, 0, bytes).view(type).view(sizes);
}

void Agreement::finish() {
  if (group_.size() == 1) return;
  exchange_->wait();
  int64_t highest = 0, refused = -1;
  for (auto& header : headers_) {
    if (!header.device().is_cpu()) header = header.cpu();
    words_.push_back(header.const_data_ptr<int64_t>());
    highest = std::max(highest, words_.back()[kCounter]);
    if (refused < 0 && words_.back()[kRefused]) refused = static_cast<int64_t>(words_.size()) - 1;
  }
  for (auto seen = counter.load();
       seen < highest && !counter.compare_exchange_weak(seen, highest);) {
  }
  tag_ = kFirstTag + highest % kTags;
  compare();
  if (refused >= 0) raise_refusal(refused);
}

void Agreement::compare() const {
  const auto* const first = words_[0];
  const auto name = [](const int64_t* words) {
    return std::string(reinterpret_cast<const char*>(words + kName));
  };
  for (int64_t r = 1; r < group_.size(); ++r) {
    const auto* const other = words_[r];
    HALCYON_CHECK(other[kMagic] == first[kMagic] && first[kMagic] == kMagicNumber, operation_,
                  "expected the same version of Halcyon on every rank, rank {} has another", r);
    HALCYON_CHECK(name(other) == name(first), operation_,
                  "expected every rank to call the same operation, got {} on rank 0 and {} on rank "
                  "{}",
                  name(first), name(other), r);
  }
  for (int64_t r = 0; r < group_.size(); ++r) {
    if (words_[r][kRefused]) return;
  }
  for (size_t i = 0; i < same_.size(); ++i) {
    const auto at = kValues + static_cast<int64_t>(i);
    for (int64_t r = 1; r < group_.size(); ++r) {
      // where they have other numbers of fields, an earlier field says why
      if (words_[r][at] == first[at]) continue;
      if (same_[i].shown == Shown::bits) {
        throw_error(
            ErrorKind::argument, operation_,
            fmt::format("expected the same {} on every rank, rank {} has another than rank 0",
                        same_[i].name, r));
      }
      throw_error(
          ErrorKind::argument, operation_,
          fmt::format("expected the same {} on every rank, got {} on rank 0 and {} on rank {}",
                      same_[i].name, show(same_[i].shown, first[at]),
                      show(same_[i].shown, words_[r][at]), r));
    }
  }
  for (int64_t r = 1; r < group_.size(); ++r) {
    HALCYON_CHECK(
        words_[r][kSameCount] == first[kSameCount] && words_[r][kEachCount] == first[kEachCount],
        operation_,
        "expected the same arguments on every rank, rank {} has others than "
        "rank 0",
        r);
  }
}

// The text of the first rank that refused, on every rank.
void Agreement::raise_refusal(int64_t rank) {
  const auto device = header_device(group_);
  const auto kind = static_cast<ErrorKind>(words_[rank][kRefused] - 1);
  auto text = at::zeros({kTextBytes}, at::kByte);
  Exchange exchange(group_, operation_, kRefusalTag);
  if (rank == group_.rank()) {
    const std::string what = refusal_->what();
    std::memcpy(text.mutable_data_ptr(), what.data(),
                std::min<size_t>(what.size(), kTextBytes - 1));
    text = text.to(device);
    for (int64_t r = 0; r < group_.size(); ++r) {
      if (r != rank) exchange.send(r, text);
    }
  } else {
    text = text.to(device);
    exchange.receive(rank, text);
  }
  exchange.post();
  exchange.wait();
  text = text.cpu();
  throw Error(kind, static_cast<const char*>(text.const_data_ptr()));
}

int64_t Agreement::of(int64_t rank, size_t index) const {
  if (group_.size() == 1) return each_.at(index);
  return words_[rank][kValues + words_[rank][kSameCount] + static_cast<int64_t>(index)];
}

std::vector<int64_t> Agreement::of_all(size_t index) const {
  std::vector<int64_t> values(group_.size());
  for (int64_t r = 0; r < group_.size(); ++r) values[r] = of(r, index);
  return values;
}

bool Agreement::any(size_t index) const {
  const auto all = of_all(index);
  return std::any_of(all.begin(), all.end(), [](int64_t value) { return value != 0; });
}

std::string Agreement::show(Shown shown, int64_t value) {
  if (shown == Shown::dtype) return c10::toString(static_cast<at::ScalarType>(value));
  if (shown == Shown::device) {
    return c10::DeviceTypeName(static_cast<c10::DeviceType>(value), true);
  }
  if (shown == Shown::number || shown == Shown::bits) return fmt::format("{}", value);
  double real;
  std::memcpy(&real, &value, sizeof real);
  return fmt::format("{}", real);
}

}  // namespace halcyon::parallel
