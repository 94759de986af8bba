// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/healpix_pad.h"

#include <ATen/ATen.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/healpix_halo.h"
#include "halcyon/parallel/index_transfer.h"
#include "halcyon/parallel/row_transfer.h"

namespace halcyon::parallel {
namespace {

constexpr auto kName = "healpix_pad";

// Only pixels within `padding` of a border are wanted: rows at the top and at the bottom, columns
// on the left and on the right, in strips of padding x n that follow each other.
struct Strips {
  int64_t n, padding;

  int64_t size() const { return 4 * padding * n; }  // of a face
  int64_t number(const FacePixel& pixel) const {
    const auto [face, row, col] = pixel;
    const auto all = padding * n, first = face * size();
    if (row < padding) return first + row * n + col;
    if (row >= n - padding) return first + all + (row - n + padding) * n + col;
    if (col < padding) return first + 2 * all + row * padding + col;
    return first + 3 * all + row * padding + col - n + padding;
  }
  // (B, faces, C, n, n) -> (B, C, faces * size())
  at::Tensor of(const at::Tensor& x) const {
    const auto strip = [&](int64_t dim, int64_t from) {
      return x.narrow(dim, from, padding).flatten(3);
    };
    return at::cat({strip(3, 0), strip(3, n - padding), strip(4, 0), strip(4, n - padding)}, 3)
        .transpose(1, 2)
        .flatten(2);
  }
};

// What stands around some faces: numbers of the strips' entries, and where a second is averaged in.
struct Halo {
  std::vector<int64_t> numbers;  // by face and place, then the second ones
  std::vector<int64_t> averaged;
};

// Places of the border in a padded face, row-major.
std::vector<int64_t> border_places(const Strips& strips) {
  const auto [n, padding] = strips;
  const auto width = n + 2 * padding;
  std::vector<int64_t> places;
  for (int64_t i = 0; i < width * width; ++i) {
    const auto row = i / width - padding, col = i % width - padding;
    if (row < 0 || row >= n || col < 0 || col >= n) places.push_back(i);
  }
  return places;
}

Halo halo_of(int64_t first_face, int64_t last_face, const Strips& strips,
             const std::vector<int64_t>& places) {
  const auto width = strips.n + 2 * strips.padding;
  Halo halo;
  std::vector<int64_t> seconds;
  for (auto face = first_face; face < last_face; ++face) {
    for (const auto place : places) {
      const auto pixel = halo_pixel(face, place / width - strips.padding,
                                    place % width - strips.padding, strips.n);
      if (pixel.has_second) {
        halo.averaged.push_back(static_cast<int64_t>(halo.numbers.size()));
        seconds.push_back(strips.number(pixel.second));
      }
      halo.numbers.push_back(strips.number(pixel.first));
    }
  }
  halo.numbers.insert(halo.numbers.end(), seconds.begin(), seconds.end());
  return halo;
}

// (B, C, entries of the halo) from the strips of all ranks.
at::Tensor halo_values(const at::Tensor& strips_of_x, const Halo& halo, const at::Tensor& places,
                       const std::shared_ptr<const IndexTransfer>& transfer) {
  const auto device = strips_of_x.device();
  const auto table = move_indexed(strips_of_x, transfer);
  auto values = table.index_select(2, places.to(device));
  const auto seconds = static_cast<int64_t>(halo.averaged.size());
  if (seconds == 0) return values;
  const auto firsts = values.size(2) - seconds;
  const auto at = at::tensor(halo.averaged, at::kLong).to(device);
  const auto means = (values.index_select(2, at) + values.narrow(2, firsts, seconds)) * 0.5;
  return values.narrow(2, 0, firsts).index_copy(2, at, means);
}

}  // namespace

at::Tensor healpix_pad(const at::Tensor& given, int64_t padding, const Group& group) {
  Agreement agreement(group, kName);
  size_t faces_at = 0, grad_at = 0;
  int64_t face_axis = 0;
  agreement.prepare([&] {
    HALCYON_CHECK(given.defined() && (given.dim() == 4 || given.dim() == 5) &&
                      given.size(-1) == given.size(-2) && given.size(-1) > 0 &&
                      at::isFloatingType(given.scalar_type()),
                  kName,
                  "expected x of shape (faces, C, n, n) or (B, faces, C, n, n) and a floating type,"
                  " got {}",
                  describe(given));
    HALCYON_CHECK(0 <= padding && padding <= given.size(-1), kName,
                  "expected a padding in 0..{}, the width of a face, got {}", given.size(-1),
                  padding);
    face_axis = given.dim() - 4;
    agreement.same_but("x", given, face_axis);
    agreement.same("padding", padding);
    faces_at = agreement.each(given.size(face_axis));
    grad_at = agreement.each(given.requires_grad());
  });
  agreement.post();
  agreement.finish();
  const auto starts = starts_of(agreement.of_all(faces_at));
  HALCYON_CHECK(starts.back() == kFaces, kName, "expected {} faces over all ranks, got {}", kFaces,
                starts.back());
  if (padding == 0) return given.clone();

  const Strips strips{given.size(-1), padding};
  const auto border = border_places(strips);
  const auto me = group.rank();
  Halo halo;
  at::Tensor wanted, places;
  std::vector<at::Tensor> asked;
  std::vector<int64_t> entries;
  for (int64_t r = 0; r < group.size(); ++r) {
    auto of_rank = halo_of(starts[r], starts[r + 1], strips, border);
    const auto [numbers, inverse, counts] =
        at::_unique2(at::tensor(of_rank.numbers, at::kLong), true, true);
    const auto first = starts[me] * strips.size(), last = starts[me + 1] * strips.size();
    asked.push_back(numbers.masked_select((numbers >= first).logical_and(numbers < last)));
    if (r != me) continue;
    halo = std::move(of_rank);
    wanted = numbers;
    places = inverse;
  }
  entries.reserve(entries.size() + starts.size());
  for (const auto start : starts) entries.push_back(start * strips.size());

  const auto joined = joined_to_backward(given, agreement.any(grad_at));
  const auto x = given.dim() == 5 ? joined : joined.unsqueeze(0);
  const auto transfer =
      index_transfer(kName, group, agreement.tag(), 2, entries, wanted, asked, x.device());
  const auto values = halo_values(strips.of(x), halo, places, transfer)
                          .unflatten(2, {x.size(1), static_cast<int64_t>(border.size())})
                          .transpose(1, 2);
  const auto padded = at::constant_pad_nd(x, {padding, padding, padding, padding});
  const auto out = padded.flatten(3)
                       .index_copy(3, at::tensor(border, at::kLong).to(x.device()), values)
                       .view(padded.sizes());
  return given.dim() == 5 ? out : out.squeeze(0);
}

}  // namespace halcyon::parallel
