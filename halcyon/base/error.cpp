// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/error.h"

namespace halcyon {

void throw_error(ErrorKind kind, std::string_view operation, std::string_view what) {
  throw Error(kind, fmt::format("[{}] {}", operation, what));
}

void throw_bug(const char* file, int line, const char* condition) {
  throw Bug(fmt::format("internal error, please report it: {}:{}: {} does not hold", file, line,
                        condition));
}

}  // namespace halcyon
