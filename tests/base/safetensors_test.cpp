// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

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
       "two tensors named a"},
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

TEST(Files, FailedWriteLeavesTheOldFile) {
  const test::TemporaryFolder folder;
  write_text(folder / "a.txt", "old");
  EXPECT_THROW(write_atomically(folder / "a.txt",
                                [](const auto&) { throw std::runtime_error("disk full"); }),
               Error);
  EXPECT_EQ(read_text(folder / "a.txt"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_THROW(write_text(folder / "no/such/folder.txt", "x"), Error);
}

TEST(Files, Sha256OfKnownText) {
  const test::TemporaryFolder folder;
  write_text(folder / "abc", "abc");
  EXPECT_EQ(sha256_of_file(folder / "abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  write_text(folder / "large", std::string(3'000'000, 'a'));
  EXPECT_EQ(sha256_of_file(folder / "large"),
            "2a152c894398719c0570f83fac34ac03a0f6e8e474b995c2403aa5434f7b9dd4");
  write_text(folder / "empty", "");
  EXPECT_EQ(sha256_of_file(folder / "empty"),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_THROW(sha256_of_file(folder / "none"), Error);
  EXPECT_THROW(sha256_of_file(folder.path()), Error);
}

}  // namespace
}  // namespace halcyon
