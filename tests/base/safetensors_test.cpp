// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::identical;

std::string file_with(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

using namespace std::string_literals;

// One tensor of one byte.
const std::string kOne = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
// Two of two bytes each.
std::string two(const std::string& a, const std::string& b) {
  return fmt::format(R"({{"a":{{"dtype":"U8","shape":[2],"data_offsets":{}}},)"
                     R"("b":{{"dtype":"U8","shape":[2],"data_offsets":{}}}}})",
                     a, b);
}

TEST(Safetensors, ReadsWhatTheReferenceReads) {
  const test::TemporaryFolder folder;
  const std::string headers[] = {
      kOne,
      "  " + kOne,
      kOne + " \n\t ",
      R"({"__metadata__":null,)" + kOne.substr(1),
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":{"x":[1]}}})",
      R"({"z":{"dtype":"F32","shape":[0,7],"data_offsets":[1,1]},)" + kOne.substr(1)};
  for (const auto& header : headers) {
    write_text(folder / "x.safetensors", file_with(header, "7"));
    EXPECT_TRUE(
        identical(read_safetensors(folder / "x.safetensors").at("a"), at::tensor({'7'}, at::kByte)))
        << header;
  }
}

// What was read before is not touched; what is read later is refused.
TEST(Safetensors, AFileThatIsWrittenOver) {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  const std::string good = file_with(two("[0,2]", "[2,4]"), "abcd");
  for (const auto& over : {file_with(two("[0,2]", "[2,4]"), "wxyz"), "short"s, good + good}) {
    std::ofstream(path, std::ios::binary) << good;
    const SafetensorsFile file(path);
    const auto whole = read_safetensors(path);
    const auto a = file.read("a");
    std::ofstream(path, std::ios::binary) << over;
    std::filesystem::last_write_time(
        path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
    EXPECT_TRUE(identical(a, at::tensor({'a', 'b'}, at::kByte)));
    EXPECT_TRUE(identical(whole.at("b"), at::tensor({'c', 'd'}, at::kByte)));
    EXPECT_THROW(file.read("b"), Error);
  }
}

TEST(Safetensors, TensorsOnMetaAreNotWritten) {
  const test::TemporaryFolder folder;
  const auto content =
      TensorFile{{{"a", at::empty({2}, at::TensorOptions().device(at::kMeta))}}, {}};
  try {
    write_safetensors(folder / "x.safetensors", content);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tensor a: expected values"), std::string::npos);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, RoundTripKeepsEveryBit) {
  const test::TemporaryFolder folder;
  TensorFile content;
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                          at::kByte, at::kBool}) {
    content.tensors[c10::toString(type)] = at::arange(12).reshape({3, 4}).t().to(type);  // strided
  }
  content.tensors["empty"] = at::empty({0, 5});
  content.tensors["scalar"] = at::scalar_tensor(7.5);
  content.metadata = {{"config", "{\"a\": 1}"}};
  write_safetensors(folder / "x.safetensors", content);
  const auto back = read_safetensors(folder / "x.safetensors");
  EXPECT_EQ(back.metadata, content.metadata);
  ASSERT_EQ(back.tensors.size(), content.tensors.size());
  for (const auto& [name, tensor] : content.tensors)
    EXPECT_TRUE(identical(back.at(name), tensor)) << name;
}

TEST(Safetensors, RefusesFilesThatLie) {
  const test::TemporaryFolder folder;
  const std::pair<std::string, const char*> cases[] = {
      {"", "header length"},
      {std::string(8, '\xff'), "announces a header"},
      {file_with("[]", ""), "not a JSON object"},
      {file_with("{\"a\":", ""), "not a JSON object"},
      {file_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234"),
       "by its shape"},
      {file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", ""),
       "but it holds 0"},
      {file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678"),
       "begins at byte 4"},
      {file_with(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", "1234"),
       "unknown dtype"},
      {file_with(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234"),
       "whole numbers"},
      {file_with(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
                 ""),
       "impossible shape"},
      {file_with(R"({"__metadata__":{"a":1}})", ""), "not a string"},
      {file_with(R"({"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})",
                 ""),
       "impossible shape"},
      {file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                 R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                 "1"),
       "\"a\" occurs twice"},
      {file_with(kOne + "\0"s, "1"), "a NUL at byte 53"},
      {file_with(kOne + "\0 and more"s, "1"), "a NUL at byte 53"},
      {file_with(kOne + "{}", "1"), "goes wrong at byte 54"},
      {file_with("\xef\xbb\xbf" + kOne, "1"), "byte order mark"},
      {file_with(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1"),
       "\"dtype\" occurs twice"},
      {file_with(R"({"__metadata__":{"k":"1","k":"2"}})", ""), "\"k\" occurs twice"},
      {file_with(R"({"__metadata__":{},"__metadata__":{}})", ""), "occurs twice"},
      {file_with(R"({"__metadata__":["a"]})", ""), "__metadata__ is not an object"},
      {file_with(std::string(2'000'000, '['), ""), "nested too deeply"},
      {file_with(R"({"a":)" + std::string(2'000'000, '['), ""), "nested too deeply"},
      {file_with(R"({"a":["U8",[1],[0,1]]})", "1"), "lacks dtype"},
      {file_with(R"({"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}})", "1"), "unknown dtype"},
      {file_with(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", "1"),
       "whole numbers"},
      {file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":["0",1]}})", "1"),
       "whole numbers"},
      {file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})", "1"),
       "lacks dtype, shape or data_offsets"},
      {file_with(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}})", "12"), "by its shape"},
      {file_with(kOne, "12"), "take 1 bytes, but it holds 2"},
      {file_with(two("[0,2]", "[1,3]"), "123"), "begins at byte 1, expected 2"},
      {file_with(two("[0,2]", "[3,5]"), "12345"), "begins at byte 3, expected 2"},
      {file_with(two("[0,2]", "[0,2]"), "12"), "begins at byte 0, expected 2"},
      {file_with(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\1\2"),
       "truth values"},
      {file_with(fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}}})",
                             [] {
                               std::string ones;
                               for (int i = 0; i < 64; ++i) ones += "1,";
                               return ones;
                             }()),
                 "1"),
       "65 dimensions"},
  };
  for (const auto& [bytes, reason] : cases) {
    write_text(folder / "bad.safetensors", bytes);
    try {
      read_safetensors(folder / "bad.safetensors");
      ADD_FAILURE() << "accepted: " << reason;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::input);
      EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("bad.safetensors"), std::string::npos) << e.what();
    }
  }
}

TEST(Safetensors, ReadsAGolden) {
  HALCYON_NEEDS_SHARED();
  const auto g = test::golden("healda/rope");
  EXPECT_FALSE(g.tensors.empty());
}

}  // namespace
}  // namespace halcyon
