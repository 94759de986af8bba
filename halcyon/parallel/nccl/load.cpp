// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include "halcyon/base/device.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/nccl/backend.h"

namespace halcyon::parallel {
namespace {

struct Loaded {
  decltype(&halcyon_nccl_backend) make = nullptr;
  std::string why_not;
};

const Loaded& loaded() {
  static const Loaded once = [] {
    Loaded made;
    made.why_not = why_no_cuda();  // loads LibTorch's CUDA half, where there is one
    Dl_info own{};
    if (dladdr(reinterpret_cast<void*>(&why_no_nccl), &own) == 0) return made;
    const std::string path = own.dli_fname;  // the other library lies beside this one
    const auto library = path.substr(0, path.rfind('/') + 1) + "libhalcyon_nccl.so";
    if (void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      made.make = reinterpret_cast<decltype(made.make)>(dlsym(handle, "halcyon_nccl_backend"));
    }
    if (!made.make) made.why_not = dlerror();
    return made;
  }();
  return once;
}

}  // namespace

std::string why_no_nccl() {
  return loaded().why_not;
}

c10::intrusive_ptr<c10d::Backend> nccl_backend(const NcclGroup& group) {
  open_device(fmt::format("cuda:{}", group.gpu));
  return c10::intrusive_ptr<c10d::Backend>::reclaim(loaded().make(group));
}

}  // namespace halcyon::parallel
