// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace halcyon {

// A safetensors file: named tensors and a string-to-string table of metadata.
struct TensorFile {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;

  // Throws Error(input) with the names that exist when there is no such tensor.
  const at::Tensor& at(const std::string& name) const;
};

// Reads the file by mapping it: tensors share its pages (writing into them never changes the file).
// The header is validated whole before any tensor is made: sizes within the file, shapes that match
// their byte ranges, no overlaps, no gaps. Throws Error(input) naming the file and the reason.
TensorFile read_safetensors(const std::filesystem::path& path);

// Writes atomically. Tensors may live on any device and be strided; names in alphabetical order.
void write_safetensors(const std::filesystem::path& path, const TensorFile& content);

}  // namespace halcyon
