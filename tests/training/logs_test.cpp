// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/training/csv_log.h"
#include "halcyon/training/event_file.h"
#include "tests/support/paths.h"

namespace halcyon::training {
namespace {

TEST(CsvLog, AResumedLogLosesTheRowsBeyondTheCheckpoint) {
  const test::TemporaryFolder folder;
  const auto path = folder / "log.csv";
  {
    CsvLog log(path, {"a", "b"}, 0);
    for (int i = 1; i <= 5; ++i) log.row(i, {0.1 * i, std::nan("")});
    log.flush();
  }
  std::string text = read_text(path);
  EXPECT_EQ(text.substr(0, 24), "step,a,b\n1,0.1,nan\n2,0.2");
  write_text(path, text + "6,0.123");  // killed in the midst of a row
  { const CsvLog log(path, {"a", "b"}, 100); }
  EXPECT_EQ(read_text(path), text);
  {
    CsvLog log(path, {"a", "b"}, 3);
    log.row(4, {7, 8});
  }
  EXPECT_EQ(read_text(path), "step,a,b\n1,0.1,nan\n2,0.2,nan\n3,0.30000000000000004,nan\n4,7,8\n");
  { const CsvLog log(path, {"a", "b"}, 0); }
  EXPECT_EQ(read_text(path), "step,a,b\n");
}

TEST(CsvLog, OtherColumnsAndBadFoldersAreErrors) {
  const test::TemporaryFolder folder;
  write_text(folder / "log.csv", "step,x\n1,2\n");
  EXPECT_THROW(CsvLog(folder / "log.csv", {"a"}, 1), Error);
  EXPECT_THROW(CsvLog(folder / "no" / "log.csv", {"a"}, 0), Error);
}

uint32_t masked(std::string_view bytes) {
  const uint32_t c = crc32c(bytes);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

TEST(EventFile, RecordsHaveTheirLengthsAndChecksums) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);  // RFC 3720's check value
  const test::TemporaryFolder folder;
  EventFile events(folder.path(), 1);
  events.scalars(300, {{"loss", 0.5}, {"rate", 2}});
  const std::string file = read_text(events.path());
  std::vector<std::string> records;
  for (std::size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    uint32_t head = 0, tail = 0;
    ASSERT_LE(at + 16, file.size());
    std::memcpy(&length, &file[at], 8);
    std::memcpy(&head, &file[at + 8], 4);
    EXPECT_EQ(head, masked(std::string_view(file).substr(at, 8)));
    records.push_back(file.substr(at + 12, length));
    std::memcpy(&tail, &file[at + 12 + length], 4);
    EXPECT_EQ(tail, masked(records.back()));
    at += 16 + length;
  }
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].substr(9), std::string("\x10\x00\x1a\x0d"
                                              "brain.Event:2",
                                              17));
  EXPECT_EQ(records[1].substr(9), std::string("\x10\x01\x3a\x02\x08\x01", 6));
  EXPECT_EQ(records[2].substr(9), std::string("\x10\xac\x02\x2a\x1a"
                                              "\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f"
                                              "\x0a\x0b\x0a\x04rate\x15\x00\x00\x00\x40",
                                              31));
}

}  // namespace
}  // namespace halcyon::training
