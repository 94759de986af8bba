// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "halcyon/model/checkpoint/tar.h"
#include "halcyon/model/checkpoint/zip.h"
#include "tests/model/checkpoint_files.h"

namespace halcyon {
namespace {

using checkpoint::InflateBudget;
using checkpoint::ZipArchive;
using test::tar_header;
using test::tar_of;
using test::TarNames;
using test::zip_of;
using test::ZipEntry;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kBlock(512, 'd');

ZipArchive open_zip(const std::string& bytes) {
  return {test::blob_of(bytes), std::make_shared<InflateBudget>(bytes.size()), {"load", "file"}};
}
// Opens and reads every member.
std::string zip_refused(const std::string& bytes) {
  return test::refusal([&] {
    const auto zip = open_zip(bytes);
    for (const auto& [name, member] : zip.members()) zip.read(name);
    zip.check_stored();
  });
}

TEST(Zip, ReadsStoredDeflatedAndZip64) {
  const std::string zeros(100'000, '\0');
  for (const bool zip64 : {false, true}) {
    const auto bytes = zip_of({{"a", "alpha", false, zip64},
                               {"folder/", "", false, zip64},
                               {"folder/b", "beta" + zeros, true, zip64},
                               {"./empty", "", false, zip64}},
                              zip64);
    const auto zip = open_zip(bytes);
    ASSERT_EQ(zip.members().size(), 4u);
    EXPECT_EQ(zip.read("a").text(), "alpha");
    EXPECT_EQ(zip.read("folder/b").text(), "beta" + zeros);
    EXPECT_EQ(zip.read("empty").size(), 0u);
    EXPECT_EQ(zip.check_stored(), checkpoint::crc32_of(test::blob_of(bytes)));
  }
}

TEST(Zip, RefusesArchivesThatLie) {
  const ZipEntry a{"a", "alpha"};
  const auto with = [&](auto change) {
    ZipEntry e = a;
    change(e);
    return zip_of({e});
  };
  const std::string good = zip_of({a});
  std::string disks = good, begin = good, count = good;
  disks[disks.size() - 18] = 1;
  begin[begin.size() - 6] = 1;
  count[count.size() - 12] = 9;
  const std::pair<std::string, const char*> cases[] = {
      {"", "too short"},
      {good.substr(0, good.size() - 1), "no zip directory at its end"},
      {good + "x", "no zip directory at its end"},
      {std::string(100'000, 'x'), "no zip directory at its end"},
      {disks, "one of several disks"},
      {begin, "but it must end at byte"},
      {count, "announces 9 members"},
      {with([](auto& e) { e.crc = 1; }), "member a is corrupt"},
      {with([](auto& e) { e.announced_size = 4'000'000'000; }), "beyond the members"},
      {with([](auto& e) { e.announced_size = 1ull << 62, e.zip64 = true; }), "beyond the members"},
      {with([](auto& e) { e.announced_size = ~0ull, e.zip64 = true; }), "beyond the members"},
      {with([](auto& e) { e.announced_size = 4, e.deflate = true; }), "do not give the 4 bytes"},
      {with([](auto& e) { e.announced_size = 6, e.deflate = true; }), "do not give the 6 bytes"},
      {with([](auto& e) { e.announced_size = 1ull << 40, e.deflate = e.zip64 = true; }),
       "more than 100 times"},
      {with([](auto& e) { e.method = 8; }), "compressed data are broken"},
      {with([](auto& e) { e.method = 12; }), "compression method 12"},
      {with([](auto& e) { e.flags = 1; }), "encrypted"},
      {with([](auto& e) { e.offset = 1; }), "local header"},
      {with([](auto& e) { e.offset = 40'000; }), "beyond the members"},
      {with([](auto& e) { e.offset = ~0ull, e.zip64 = true; }), "beyond the members"},
      {with([](auto& e) { e.local_name = "b"; }), "is not what its local header"},
      {with([](auto& e) { e.name = ""; }), "forbidden name"},
      {with([](auto& e) { e.name = "/etc/passwd"; }), "forbidden name"},
      {with([](auto& e) { e.name = "a/../../b"; }), "forbidden name"},
      {with([](auto& e) { e.name = ".."; }), "forbidden name"},
      {with([](auto& e) { e.name = "a\\b"; }), "forbidden name"},
      {with([](auto& e) { e.name = "C:b"; }), "forbidden name"},
      {with([](auto& e) { e.name = std::string("a\0b", 3); }), "forbidden name"},
      {zip_of({a, a}), "two members named a"},
      {zip_of({a, {"./a", "x"}}), "two members named a"},
  };
  for (const auto& [bytes, reason] : cases) EXPECT_THAT(zip_refused(bytes), HasSubstr(reason));
  EXPECT_THAT(zip_refused(good), IsEmpty());
  EXPECT_THAT(test::refusal([&] { open_zip(good).read("b"); }), HasSubstr("no member named b"));
}

TEST(Zip, RefusesOverlaps) {
  // b's local header and data lie within a's data: one byte counted twice
  const std::string inner = zip_of({{"b", "beta"}});
  const auto local = inner.substr(0, 31 + 4);
  auto bytes = zip_of({{"a", local}, {"b", "beta", false, false, {}, {}, /*offset=*/31}});
  EXPECT_THAT(zip_refused(bytes), HasSubstr("overlap at byte 31"));
}

TEST(Zip, BombsAreRefusedAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const std::string zeros(200'000'000, '\0');
  EXPECT_THAT(zip_refused(zip_of({{"a", zeros, true}})), HasSubstr("more than 100 times"));
  // many members, each within the limit
  std::vector<ZipEntry> many;
  for (int i = 0; i < 20; ++i)
    many.push_back({fmt::format("{}", i), zeros.substr(0, 15'000'000), true});
  EXPECT_THAT(zip_refused(zip_of(many)), HasSubstr("more than 100 times"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

std::string tar_refused(const std::string& bytes) {
  return test::refusal([&] { checkpoint::read_tar(test::blob_of(bytes), {"load", "file"}); });
}

TEST(Tar, ReadsUstarPaxAndGnuNames) {
  const std::string longer = std::string(60, 'f') + "/" + std::string(90, 'g');
  for (const auto names : {TarNames::ustar, TarNames::pax, TarNames::gnu}) {
    const auto second = names == TarNames::ustar ? std::string("./b") : longer;
    const auto bytes = tar_of({{"a", "alpha"}, {second, kBlock}, {"empty", ""}}, names);
    ASSERT_TRUE(checkpoint::looks_like_tar(test::blob_of(bytes)));
    const auto members = checkpoint::read_tar(test::blob_of(bytes), {"load", "file"});
    ASSERT_EQ(members.size(), 3u);
    EXPECT_EQ(members.at("a").text(), "alpha");
    EXPECT_EQ(members.at(names == TarNames::ustar ? "b" : longer).text(), kBlock);
    EXPECT_EQ(members.at("empty").size(), 0u);
  }
}

TEST(Tar, ReadsBase256Sizes) {
  auto bytes = tar_of({{"a", "alpha"}});
  const std::string size = '\x80' + std::string(10, '\0') + '\x05';
  std::string header = bytes.substr(0, 512);
  header.replace(124, 12, size);
  header.replace(148, 8, std::string(8, ' '));
  std::uint64_t sum = 0;
  for (const unsigned char c : header) sum += c;
  header.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  EXPECT_EQ(checkpoint::read_tar(test::blob_of(header + bytes.substr(512)), {"load", "file"})
                .at("a")
                .text(),
            "alpha");
}

TEST(Tar, RefusesArchivesThatLie) {
  const std::string end(1024, '\0');
  auto damaged = tar_of({{"a", "alpha"}});
  damaged[3] = 'x';
  const std::pair<std::string, const char*> cases[] = {
      {"", "without an end mark"},
      {tar_header("a", 0), "without an end mark"},
      {damaged, "expected a tar header at byte 0"},
      {tar_header("a", 512) + end.substr(0, 400), "beyond its end"},
      {tar_header("a", 077777777777) + end, "beyond its end at byte 0"},
      {tar_header("a", 3) + "abc", "ends inside a member"},
      {tar_of({{"a", "x"}, {"a", "y"}}), "two members named a"},
      {tar_of({{"/a", "x"}}), "forbidden name"},
      {tar_of({{"../a", "x"}}), "forbidden name"},
      {tar_of({{"a", ""}}, TarNames::ustar, '2'), "expected a regular file, got type '2'"},
      {tar_of({{"a", ""}}, TarNames::ustar, '3'), "expected a regular file"},
      {tar_header("x", 10, 'x') + std::string("99 path=a\n") + std::string(502, '\0') + end,
       "broken pax header"},
      {tar_header("x", 2 << 20, 'x') + std::string(2 << 20, 'x') + end, "a pax header of"},
      {tar_header("x", 5000, 'L') + std::string(5120, 'x') + end, "a name of 5000 bytes"},
      {tar_header("x", 20, 'x') + std::string("20 size=99999999999\n") + std::string(492, '\0') +
           tar_header("a", 3) + kBlock + end,
       "beyond its end"},
  };
  for (const auto& [bytes, reason] : cases) EXPECT_THAT(tar_refused(bytes), HasSubstr(reason));
}

}  // namespace
}  // namespace halcyon
