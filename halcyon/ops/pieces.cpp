// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pieces.h"

// The C name in mkl_service.h. Weak: not every build of torch has MKL.
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace halcyon {
namespace {

// 0: as many as the process has set. Returns what was set before.
int set_product_threads(int threads) {
  return MKL_Set_Num_Threads_Local != nullptr ? MKL_Set_Num_Threads_Local(threads) : 0;
}

}  // namespace

OneProductThread::OneProductThread() : before_(set_product_threads(1)) {}

OneProductThread::~OneProductThread() {
  set_product_threads(before_);
}

}  // namespace halcyon
