// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/input_file.h"

namespace halcyon {

// A safetensors file: named tensors and a string-to-string table of metadata.
struct TensorFile {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;

  // Throws Error(input) with the names that exist when there is no such tensor.
  const at::Tensor& at(const std::string& name) const;
};

// An open safetensors file whose tensors are read one by one.
class SafetensorsFile {
 public:
  struct Entry {
    at::ScalarType dtype = at::kFloat;
    std::vector<int64_t> shape;
    std::uint64_t begin = 0, end = 0;  // in the file
  };

  // Reads and validates the header whole: sizes within the file, shapes that match their byte
  // ranges, no overlaps, no gaps, nothing after the tensors. Throws Error(input) naming the file
  // and the reason.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  // A tensor of these entries in memory of its own, which nothing that happens to the file can
  // change later. Throws Error(input) when the file was changed since it was opened.
  at::Tensor read(const std::string& name) const;

 private:
  void read_header();
  void add_entry(const std::string& name, const nlohmann::json& value);
  void check_layout(std::uint64_t data_begin);
  template <class... Args>
  void check(bool holds, fmt::format_string<Args...> format, Args&&... args) const;

  InputFile file_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, Entry> entries_;
};

// Reads a file whole (see SafetensorsFile).
TensorFile read_safetensors(const std::filesystem::path& path);

// Writes atomically. Tensors may live on any device and be strided; names in alphabetical order.
void write_safetensors(const std::filesystem::path& path, const TensorFile& content);

}  // namespace halcyon
