// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <tuple>

// HEALPix, the hierarchical equal-area iso-latitude pixelisation (Gorski et al. 2005, ApJ 622,
// 759): 12 faces (0-3 north, 4-7 equator, 8-11 south) of 4^level pixels each.
//
// Everywhere: pixel numbers may be int32 or int64 and come back as int64; results live on the
// inputs' device (the work is done on the CPU). Error(argument) for a level outside 0..29, a pixel
// outside 0..npix-1, an unknown order, |lat| > 90, and coordinates that are not finite.
namespace halcyon::healpix {

inline constexpr int kMaxLevel = 29;  // the finest whose pixel numbers fit 64 bits in every order
// Its list of pixels takes 6 GiB; a field on a finer whole sphere is surely a mistake.
inline constexpr int kMaxFieldLevel = 13;

enum class Order {
  nest,    // bits of x and y interleaved inside a face
  ring,    // along rings of latitude from north to south, eastwards
  pad_xy,  // face, row, col with row 0, col 0 at the face's north corner: x = n-1-row, y = n-1-col
};

// "nest", "ring" or "pad_xy".
Order parse_order(std::string_view name);
std::string_view name_of(Order order);

// 12 * 4^level.
int64_t npix(int level);

// The level that has this many pixels; Error(argument) when none has.
int level_of(int64_t npix);

// Which of the pixels that meet on a border holds it.
enum class Rule {
  standard,  // as the public HEALPix library: right at every border, pole and level
  healda,    // as the data pipe of the released HealDA models, for their own pixels only
};

// "standard" or "healda".
Rule parse_rule(std::string_view name);
std::string_view name_of(Rule rule);

// The pixel that holds each point; lon and lat in degrees, broadcast against each other, lon of any
// sign and number of turns.
//
// Rule::standard takes the coordinates exactly, whatever their dtype, and computes in float64. A
// border belongs to the pixel on one of its sides: a meridian 0, 90, 180 or 270 to the pixel east
// of it, a pole to the cap's pixel of that longitude.
//
// Rule::healda computes in the dtype given (half precision in float32), as the released models'
// data pipe does, and float32 answers near a border may differ from float64's. Points exactly on
// the border of a face (lon 0, 90, 180, 270 in the caps, the poles; in float32 also all within 0.02
// degrees of the north pole) may get a pixel at the opposite border of the face, far away.
at::Tensor ang2pix(int level, const at::Tensor& lon, const at::Tensor& lat,
                   Order order = Order::pad_xy, Rule rule = Rule::standard);

// Pixel centres (lon, lat): float64 degrees of pix's shape, lon in [0, 360).
std::tuple<at::Tensor, at::Tensor> pix2ang(int level, const at::Tensor& pix,
                                           Order order = Order::pad_xy);

// The same pixels, numbered in the other order.
at::Tensor convert(int level, const at::Tensor& pix, Order from, Order to);

// convert(level, arange(npix), pad_xy, nest).
at::Tensor nest_of_padxy(int level);

// Rearranges fields along the pixel axis `dim`, whose length tells the level. Differentiable.
at::Tensor reorder(const at::Tensor& data, Order from, Order to, int64_t dim = -1);

// The pixel `up` levels coarser, 0 <= up <= level, that holds pix.
at::Tensor parent(int level, const at::Tensor& pix, int up = 1, Order order = Order::pad_xy);

// (..., 8): SW, W, NW, N, NE, E, SE, S of each pixel; -1 where there is none (at 24 of the faces'
// corners only three pixels meet).
at::Tensor neighbours(int level, const at::Tensor& pix, Order order = Order::pad_xy);

}  // namespace halcyon::healpix
