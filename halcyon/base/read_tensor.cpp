// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/read_tensor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "halcyon/base/large_pages.h"

namespace halcyon {

void read_in_pieces(const InputFile& file, std::uint64_t offset, std::span<std::byte> into) {
  constexpr std::uint64_t kPiece = std::uint64_t{4} << 20;
  const auto pieces = static_cast<std::int64_t>((into.size() + kPiece - 1) / kPiece);
  at::parallel_for(0, pieces, 1, [&](std::int64_t first, std::int64_t last) {
    for (auto i = first; i < last; ++i) {
      const auto begin = static_cast<std::uint64_t>(i) * kPiece;
      file.read(offset + begin, into.subspan(begin, std::min(kPiece, into.size() - begin)));
    }
  });
}

at::Tensor read_tensor(const InputFile& file, std::uint64_t offset, at::IntArrayRef sizes,
                       at::ScalarType dtype) {
  auto tensor = on_large_pages(at::empty(sizes, dtype));
  if (tensor.numel() > 0)
    read_in_pieces(file, offset,
                   {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
  return tensor;
}

}  // namespace halcyon
