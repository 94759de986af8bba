// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

// Process-wide switches of neighborhood attention; reading and setting are safe between threads.
// None changes a result beyond rounding.
namespace halcyon {

// Modules use the fused operators; off at import. kv_parallel as below.
void use_fused_na(bool mode = true, bool kv_parallel = true);
bool is_fused_na_enabled();

// Lets the backward cut a problem of few heads into at least 16 shares for the threads; without,
// into at least 4. Neighbouring shares both compute the queries between them. (NATTEN: splits of
// keys and values over thread blocks.) Off at import.
void use_kv_parallelism_in_fused_na(bool mode = true);
bool is_kv_parallelism_in_fused_na_enabled();

// How much packed memory a thread may hold: "default" 4 MiB, "strict" 1 MiB, "unrestricted" 64 MiB,
// or what a single row of tiles needs, if that is more.
void set_memory_usage_preference(const std::string& preference = "default");
std::string get_memory_usage_preference();
long packed_bytes();

// Backends that may be chosen; on at import. With both off the reference runs. They return the new
// state.
bool enable_gemm_na();
bool disable_gemm_na();
bool is_gemm_na_enabled();
bool enable_tiled_na();
bool disable_tiled_na();
bool is_tiled_na_enabled();

}  // namespace halcyon
