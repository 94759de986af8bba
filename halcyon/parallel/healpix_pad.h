// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// x (faces, C, n, n) or (B, faces, C, n, n), rows and columns in the model's pad_xy order, the 12
// faces in consecutive runs over the ranks -> the same faces with `padding` pixels of their
// neighbours around them, n + 2 padding. Where only three faces meet (the upper left and lower
// right corners of faces 4-7) the patch has the neighbours' continued rows and columns and on the
// diagonal the mean of the two (healpix_halo.h). padding: 0 to n.
at::Tensor healpix_pad(const at::Tensor& x, int64_t padding, const Group& group = {});

}  // namespace halcyon::parallel
