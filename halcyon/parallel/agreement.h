// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/parallel/exchange.h"

namespace halcyon::parallel {

// What the ranks of a group tell one another before an operation moves data, so that a mismatch or
// a request that cannot be done is an Error on every rank instead of a process that hangs or dies.
// Every rank sends each other one header of kWords words directly, so a rank that is missing is
// named by all.
//
//   Agreement agreement(group, "halo_exchange");
//   agreement.prepare([&] {
//     HALCYON_CHECK(width >= 0, "halo_exchange", ...);   // fails on every rank, with this text
//     agreement.same("halo_width", width);               // compared
//     rows = agreement.each(x.size(dim));                // known to all
//   });
//   agreement.post();
//   ...                                                  // work that does not need the others
//   agreement.finish();
//   agreement.of(peer, rows);
//
// The group stays usable after such an Error.
class Agreement {
 public:
  static constexpr int64_t kWords = 64;

  Agreement(Group group, std::string operation);
  ~Agreement();

  // Runs the operation's own checks; an Error that f throws is raised by finish() on every rank.
  // Without peers it is thrown here.
  void prepare(const std::function<void()>& f);

  // Must be equal on every rank.
  void same(const char* name, int64_t value);
  void same(const char* name, double value);
  void same(const char* name, at::ScalarType value);
  // Any number of values, as one word of their bits.
  void same_bits(const char* name, const void* data, size_t bytes);
  void same(const char* name, at::IntArrayRef values);
  void same(const char* name, const std::string& value);
  // Number of axes, sizes but that of axis dim (negative: all are compared), dtype, device type.
  void same_but(const char* name, const at::Tensor& tensor, int64_t dim);
  // This rank's own; returns where of() finds it.
  size_t each(int64_t value);

  // Sends this peer data along with the header, at most kAttached bytes, so that small halos need
  // no second round. Only where can_attach(); the peer must know from what all were told how long
  // it is, and reads it with attached() after finish().
  static constexpr int64_t kAttached = 1 << 20;
  bool can_attach(const at::Tensor& data) const;
  void attach(int64_t peer, std::vector<at::Tensor> data);
  // The next tensor of this many rows' sizes that the peer attached, a view of its message.
  at::Tensor attached(int64_t peer, at::IntArrayRef sizes, at::ScalarType type);

  void post();
  void finish();

  // After finish().
  int64_t of(int64_t rank, size_t index) const;
  std::vector<int64_t> of_all(size_t index) const;
  // Whether any rank's is not zero.
  bool any(size_t index) const;
  // A number for the messages of this operation, the same on every rank and unlike those of the
  // group's operations under way.
  int64_t tag() const { return tag_; }

 private:
  enum class Shown { number, real, dtype, device, bits };
  struct Field {
    std::string name;
    Shown shown;
    int64_t value;
  };
  static std::string show(Shown shown, int64_t value);
  bool is_neighbour(int64_t rank) const;
  void compare() const;
  [[noreturn]] void raise_refusal(int64_t rank);

  Group group_;
  std::string operation_;
  std::vector<Field> same_;
  std::vector<int64_t> each_;
  std::optional<Error> refusal_;
  std::vector<at::Tensor> headers_;  // of every rank
  std::map<int64_t, std::vector<at::Tensor>> attachments_;
  std::map<int64_t, int64_t> read_;  // bytes of a peer's message so far
  std::vector<const int64_t*> words_;
  std::unique_ptr<Exchange> exchange_;
  int64_t tag_ = 0;
};

}  // namespace halcyon::parallel
