// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace halcyon::training {

// CRC-32C (Castagnoli), as iSCSI and TFRecord use it.
uint32_t crc32c(std::string_view bytes);

// Scalars in TensorBoard's own format, TFRecord files of Event messages
// (tensorflow/core/util/event.proto). A new file is begun on each start; TensorBoard drops what
// older files hold from first_step on.
class EventFile {
 public:
  EventFile(const std::filesystem::path& folder, int64_t first_step);
  // Failure to write is not an error: the CSV log is the record, this is a view of it.
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  const std::filesystem::path& path() const { return path_; }

 private:
  void record(std::string_view event);

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace halcyon::training
