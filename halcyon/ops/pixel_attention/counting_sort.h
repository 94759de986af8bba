// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace halcyon::pixel_attention_detail {

// The stable order (rows,) that sorts index (rows,), and how often each of the values 0 .. total -
// 1 occurs (total,). The same for any number of threads. False, with nothing of use written, when a
// value lies outside. rows and total are 1 .. 2^31 - 1; Index is int32_t or int64_t.
template <class Index>
bool counting_sort(const Index* index, int64_t rows, int64_t total, int32_t* order,
                   int64_t* counts);

}  // namespace halcyon::pixel_attention_detail
