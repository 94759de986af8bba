// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

namespace halcyon::training {
namespace {

constexpr std::array<uint32_t, 256> kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = c;
  }
  return table;
}();

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Protocol-buffer encoding, https://protobuf.dev/programming-guides/encoding
template <class T>
std::string fixed(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(value % 128 + 128);
  return out + static_cast<char>(value);
}
std::string tag(int field, int wire) {
  return varint(static_cast<uint64_t>(field) * 8 + static_cast<uint64_t>(wire));
}
std::string bytes_field(int field, std::string_view bytes) {
  return tag(field, 2) + varint(bytes.size()) + std::string(bytes);
}

// Event: 1 wall_time, 2 step, and one of 3 file_version, 5 summary, 7 session_log.
std::string event(int64_t step, int field, std::string_view content) {
  return tag(1, 1) + fixed(now()) + tag(2, 0) + varint(static_cast<uint64_t>(step)) +
         bytes_field(field, content);
}

uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (const char byte : bytes) c = kTable[(c ^ static_cast<unsigned char>(byte)) & 255] ^ (c >> 8);
  return ~c;
}

EventFile::EventFile(const std::filesystem::path& folder, int64_t first_step) {
  path_ = folder / fmt::format("events.out.tfevents.{:017.6f}.{}", now(), ::getpid());
  out_.open(path_, std::ios::binary);
  record(event(0, 3, "brain.Event:2"));
  record(event(first_step, 7, tag(1, 0) + varint(1)));  // SessionLog.START
}

void EventFile::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [name, value] : values) {
    summary += bytes_field(1, bytes_field(1, name) + tag(2, 5) + fixed(static_cast<float>(value)));
  }
  record(event(step, 5, summary));
}

// TFRecord: length, its masked CRC, content, its masked CRC; little endian.
void EventFile::record(std::string_view event) {
  const std::string length = fixed(uint64_t{event.size()});
  out_ << length << fixed(masked_crc(length)) << event << fixed(masked_crc(event)) << std::flush;
}

}  // namespace halcyon::training
