// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

// What a run record says of the program and the machine that made a product.
namespace halcyon {

const char* version();  // Halcyon's own, "0.1.0"

// Name and version of the libraries that are loaded, as they say it themselves.
std::vector<std::pair<std::string, std::string>> library_versions();

// As the kernel names it ("unknown" where it does not).
std::string cpu_model();

}  // namespace halcyon
