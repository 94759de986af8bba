// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/recycled.h"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>

#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

namespace halcyon {
namespace {

constexpr size_t kFewest = size_t{256} << 10;  // glibc recycles smaller ones itself
constexpr size_t kLargePage = size_t{2} << 20;
constexpr size_t kUnit = size_t{64} << 10;

struct Block {
  void* memory;
  size_t bytes;
};

class Pool {
 public:
  // The smallest that waits and is not more than a quarter too large, else a new one.
  Block take(size_t bytes) {
    const size_t unit = bytes >= kLargePage ? kLargePage : kUnit;
    bytes = (bytes + unit - 1) / unit * unit;
    {
      const std::lock_guard lock(mutex_);
      const auto found = waiting_.lower_bound(bytes);
      if (found != waiting_.end() && found->first <= bytes + bytes / 4) {
        const Block block{found->second, found->first};
        held_ -= block.bytes;
        waiting_.erase(found);
        return block;
      }
    }
    void* const memory = std::aligned_alloc(unit, bytes);
    if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (unit == kLargePage) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return {memory, bytes};
  }

  void give(const Block& block) {
    {
      const std::lock_guard lock(mutex_);
      if (held_ + block.bytes <= kMostRecycled) {
        waiting_.emplace(block.bytes, block.memory);
        held_ += block.bytes;
        return;
      }
    }
    std::free(block.memory);
  }

  size_t held() {
    const std::lock_guard lock(mutex_);
    return held_;
  }

 private:
  std::mutex mutex_;
  std::multimap<size_t, void*> waiting_;
  size_t held_ = 0;
};

Pool& pool() {
  static auto* const one = new Pool;  // tensors may outlive every static
  return *one;
}

void give_back(void* context) {
  auto* const block = static_cast<Block*>(context);
  pool().give(*block);
  delete block;
}

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const auto block = pool().take(bytes);
    return {block.memory, new Block(block), &give_back, c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

size_t recycled_bytes() {
  return pool().held();
}

at::Tensor recycled_empty(at::IntArrayRef sizes, const at::TensorOptions& options) {
  static auto* const allocator = new Allocator;
  size_t bytes = options.dtype().itemsize();
  for (const auto size : sizes) bytes *= static_cast<size_t>(size);
  if (!options.device().is_cpu() || bytes < kFewest || bytes > kMostRecycled / 2) {
    return at::empty(sizes, options);
  }
  return at::detail::empty_generic(sizes, allocator, c10::DispatchKeySet(c10::DispatchKey::CPU),
                                   at::typeMetaToScalarType(options.dtype()), std::nullopt);
}

}  // namespace halcyon
