// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/device.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

TEST(Device, CpuAlways) {
  EXPECT_EQ(open_device("cpu"), at::Device(at::kCPU));
}

TEST(Device, RefusesUnknownNames) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:99999", "cpu:0"}) {
    EXPECT_THROW(open_device(name), Error) << name;
  }
}

TEST(Device, CudaWorksOrSaysWhyNot) {
  const auto reason = why_no_cuda();
  if (!reason.empty()) {
    try {
      open_device("cuda");
      FAIL() << "a device in spite of: " << reason;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::configuration);
    }
    GTEST_SKIP() << reason;
  }
  const auto x = at::ones({3}, at::TensorOptions().device(open_device("cuda")));
  EXPECT_EQ(x.sum().item<float>(), 3.0f);
}

}  // namespace
}  // namespace halcyon
