// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <bit>
#include <chrono>
#include <fstream>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "tests/model/checkpoint_files.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::Files;
using test::identical;
using test::TarNames;
using test::ZipEntry;
using testing::HasSubstr;

const char* const kArgs = R"({"__name__": "VideoHealDA",
  "__module__": "physicsnemo.experimental.models.healda.video_healda",
  "__args__": {"hidden_size": 64, "qk_norm_type": null}})";
const char* const kMetadata = R"({"physicsnemo_version": "2.2.2", "mdlus_file_version": "0.1.0"})";

std::string floats(int64_t count) {
  const auto values = at::arange(count).to(at::kFloat).sin();
  return {static_cast<const char*>(values.const_data_ptr()), static_cast<std::size_t>(4 * count)};
}
std::string small_model() {
  return test::torch_archive_of(
      test::pickled::state_dict({{"a", test::pickled::tensor("0", 12, {3, 4}, {4, 1})},
                                 {"a.t", test::pickled::tensor("0", 12, {4, 3}, {1, 4})},
                                 {"b", test::pickled::tensor("1", 4, {2}, {1}, 1)}}),
      {{"0", floats(12)}, {"1", floats(4)}});
}
Files small_files() {
  return {{"model.pt", small_model()}, {"args.json", kArgs}, {"metadata.json", kMetadata}};
}
std::string zipped(const Files& files, bool deflate = false) {
  std::vector<ZipEntry> entries;
  for (const auto& [name, data] : files) entries.push_back({name, data, deflate});
  return test::zip_of(entries);
}
Files with(const std::string& name, const std::string& data) {
  auto files = small_files();
  for (auto& file : files)
    if (file.first == name) file.second = data;
  return files;
}

class CheckpointFile : public testing::Test {
 protected:
  Checkpoint read(const std::string& bytes, const std::string& name = "x.mdlus") {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;  // write_text() waits for the disk
    return read_checkpoint(folder_ / name);
  }
  // Reads the file and every tensor.
  std::string refused(const std::string& bytes, const std::string& name = "x.mdlus") {
    return test::refusal([&] {
      for (const auto& [key, tensor] : read(bytes, name).tensors) tensor.read();
    });
  }
  test::TemporaryFolder folder_;
};

void expect_small(const Checkpoint& checkpoint) {
  const auto values = at::arange(12).to(at::kFloat).sin();
  EXPECT_EQ(checkpoint.config["hidden_size"], 64);
  ASSERT_EQ(checkpoint.tensors.size(), 3u);
  EXPECT_TRUE(identical(checkpoint.tensors.at("a").read(), values.reshape({3, 4})));
  EXPECT_TRUE(identical(checkpoint.tensors.at("a.t").read(), values.reshape({3, 4}).t()));
  EXPECT_TRUE(identical(checkpoint.tensors.at("b").read(), values.slice(0, 1, 3)));
}

TEST_F(CheckpointFile, ReadsEveryContainer) {
  const auto files = small_files();
  auto checkpoint = read(zipped(files));
  EXPECT_EQ(checkpoint.container, "mdlus (zip)");
  EXPECT_EQ(checkpoint.model_class, "HealDA");
  EXPECT_EQ(checkpoint.metadata.at("physicsnemo_version"), "2.2.2");
  EXPECT_EQ(checkpoint.parameter_count(), 26);
  expect_small(checkpoint);
  expect_small(read(zipped(files, /*deflate=*/true)));
  for (const auto names : {TarNames::ustar, TarNames::pax, TarNames::gnu}) {
    checkpoint = read(test::tar_of(files, names));
    EXPECT_EQ(checkpoint.container, "mdlus (tar)");
    expect_small(checkpoint);
    expect_small(read(test::gzip_of(test::tar_of(files, names))));
  }
}

// Weights that are tied in the file would be trained twice if they were tied in memory.
TEST_F(CheckpointFile, TensorsOfOneStorageHaveMemoryOfTheirOwn) {
  for (const bool deflate : {false, true}) {
    const auto checkpoint = read(zipped(small_files(), deflate));
    const auto a = checkpoint.tensors.at("a").read(), t = checkpoint.tensors.at("a.t").read();
    EXPECT_NE(a.const_data_ptr(), t.const_data_ptr());
    EXPECT_TRUE(t.is_contiguous());
    a.fill_(1);
    t.fill_(2);
    expect_small(checkpoint);  // read again
    expect_small(read_checkpoint(checkpoint.path));
  }
}

// Whatever torch.save keeps of a tensor's strides comes out contiguous.
TEST_F(CheckpointFile, ReadsEveryKindOfView) {
  const auto view = [](std::vector<int64_t> sizes, std::vector<int64_t> strides,
                       int64_t offset = 0) {
    return test::pickled::tensor("0", 12, sizes, strides, offset);
  };
  const auto typed = [](const char* key, const char* type) {
    return test::pickled::tensor(key, 2, {2}, {1}, 0, type);
  };
  const auto model = [&](bool deflate) {
    auto members = test::unzip(test::torch_archive_of(
        test::pickled::state_dict({{"expanded", view({5, 2, 3}, {0, 0, 1}, 2)},
                                   {"one", view({1000}, {0}, 11)},
                                   {"transposed", view({4, 3}, {1, 4})},
                                   {"strided", view({2, 2}, {6, 3}, 1)},
                                   {"overlapping", view({5, 4}, {2, 1})},
                                   {"scalar", view({}, {}, 7)},
                                   {"empty", view({0, 3}, {3, 1})},
                                   {"nothing", test::pickled::tensor("1", 0, {0}, {1})},
                                   {"odd_stride", view({1, 2}, {99, 1})},
                                   {"double", typed("2", "DoubleStorage")},
                                   {"half", typed("3", "HalfStorage")},
                                   {"bf16", typed("3b", "BFloat16Storage")},
                                   {"int", typed("4", "IntStorage")},
                                   {"long", typed("2b", "LongStorage")},
                                   {"bool", typed("5", "BoolStorage")}}),
        {{"0", floats(12)},
         {"1", ""},
         {"2", std::string(16, '@')},
         {"2b", std::string(16, '\1')},
         {"3", std::string(4, '@')},
         {"3b", std::string(4, '@')},
         {"4", std::string(8, '\1')},
         {"5", std::string("\0\1", 2)}}));
    return zipped(members, deflate);
  };
  for (const bool deflate : {false, true}) {
    const auto checkpoint = read(zipped(with("model.pt", model(deflate))));
    const auto flat = at::arange(12).to(at::kFloat).sin();
    const auto expect = [&](const char* name, const at::Tensor& wanted) {
      const auto tensor = checkpoint.tensors.at(name).read();
      EXPECT_TRUE(identical(tensor, wanted)) << name;
      EXPECT_TRUE(tensor.is_contiguous()) << name;
      EXPECT_EQ(tensor.storage().nbytes(), tensor.nbytes()) << name;
      EXPECT_EQ(checkpoint.tensors.at(name).dtype, wanted.scalar_type()) << name;
    };
    expect("expanded", flat.as_strided({5, 2, 3}, {0, 0, 1}, 2));
    expect("one", flat[11].expand({1000}));
    expect("transposed", flat.view({3, 4}).t());
    expect("strided", flat.as_strided({2, 2}, {6, 3}, 1));
    expect("overlapping", flat.as_strided({5, 4}, {2, 1}));
    expect("scalar", flat[7]);
    expect("empty", at::empty({0, 3}));
    expect("nothing", at::empty({0}));
    expect("odd_stride", flat.narrow(0, 0, 2).view({1, 2}));
    expect("double", at::full({2}, std::bit_cast<double>(0x4040404040404040), at::kDouble));
    expect("half", at::full({2}, 2.125, at::kHalf));
    expect("bf16", at::full({2}, 3.0, at::kBFloat16));
    expect("int", at::full({2}, 0x01010101, at::kInt));
    expect("long", at::full({2}, 0x0101010101010101, at::kLong));
    expect("bool", at::tensor({0, 1}).to(at::kBool));
  }
}

// A few bytes that announce gigabytes: refused before any of them is made.
TEST_F(CheckpointFile, ExpandedTensorsAreBounded) {
  const auto expanded = [&](const std::vector<std::vector<int64_t>>& shapes) {
    Files tensors;
    for (const auto& shape : shapes)
      tensors.emplace_back(
          fmt::format("t{}", tensors.size()),
          test::pickled::tensor("0", 1, shape, std::vector<int64_t>(shape.size(), 0)));
    return refused(
        zipped(with("model.pt", test::torch_archive_of(test::pickled::state_dict(tensors),
                                                       {{"0", floats(1)}}))));
  };
  EXPECT_EQ(expanded({{1000, 1000}}), "");
  EXPECT_THAT(expanded({{100'000, 100'000}}), HasSubstr("more than 100 times"));
  EXPECT_THAT(expanded({std::vector<int64_t>(62, 2)}), HasSubstr("rank 62"));
  EXPECT_THAT(expanded({{int64_t{1} << 40, int64_t{1} << 22}}), HasSubstr("impossibly large"));
  EXPECT_THAT(expanded(std::vector<std::vector<int64_t>>(64, {1000, 1000})),
              HasSubstr("more than 100 times"));
}

// Between opening and reading; what was read before stays.
TEST_F(CheckpointFile, AFileThatIsWrittenOverIsNotMixed) {
  TensorFile plain{{{"a", at::ones({3, 4})}, {"b", at::ones({2})}}, {}};
  checkpoint::write_own_metadata("{}", plain.metadata);
  write_safetensors(folder_ / "own.safetensors", plain);
  const auto own = read_text(folder_ / "own.safetensors");
  for (const auto& [name, bytes] : Files{{"x.safetensors", own},
                                         {"x.mdlus", zipped(small_files())},
                                         {"y.mdlus", test::tar_of(small_files())}}) {
    auto other = bytes;
    other.back() ^= 1;
    for (const auto& over : {other, bytes.substr(0, 100), bytes + bytes, std::string()}) {
      const auto checkpoint = read(bytes, name);
      const auto a = checkpoint.tensors.at("a").read(), kept = a.clone();
      std::ofstream(folder_ / name, std::ios::binary) << over;
      std::filesystem::last_write_time(
          folder_ / name,
          std::filesystem::last_write_time(folder_ / name) + std::chrono::seconds(1));
      EXPECT_TRUE(identical(a, kept));
      EXPECT_THAT(test::refusal([&] { checkpoint.tensors.at("b").read(); }),
                  testing::AllOf(HasSubstr(name), HasSubstr("while it was read")));
    }
  }
}

// In bytes, from /proc/self/status.
int64_t status_of_process(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field + ":")) return 1024 * std::stoll(line.substr(field.size() + 1));
  return -1;
}

TEST_F(CheckpointFile, LoadingTakesTheWeightsAndOneTensor) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer keeps freed memory";
#endif
  // as large tensors are: each in pages of its own, which go when it is freed
  ASSERT_EQ(::mallopt(M_MMAP_THRESHOLD, 1 << 20), 1);
  constexpr int64_t kTensors = 24, kElements = int64_t{1} << 20, kTensor = 4 * kElements;
  const std::string one = floats(kElements);
  Files tensors, storages;
  TensorFile plain;
  for (int64_t i = 0; i < kTensors; ++i) {
    const auto key = fmt::format("{}", i);
    tensors.emplace_back(
        "t" + key, test::pickled::tensor(
                       key, kElements, {1024, 1024},
                       i % 2 == 0 ? std::vector<int64_t>{1024, 1} : std::vector<int64_t>{1, 1024}));
    storages.emplace_back(key, one);
    plain.tensors["t" + key] = at::zeros({1024, 1024});
  }
  write_text(folder_ / "x.mdlus",
             zipped(with("model.pt",
                         test::torch_archive_of(test::pickled::state_dict(tensors), storages))));
  storages.clear();
  checkpoint::write_own_metadata("{}", plain.metadata);
  write_safetensors(folder_ / "x.safetensors", plain);
  plain.tensors.clear();
  for (const char* name : {"x.mdlus", "x.safetensors"}) {
    ::malloc_trim(0);                             // what was freed is not taken again unseen
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins here
    const auto before = status_of_process("VmRSS");
    const auto checkpoint = read_checkpoint(folder_ / name);
    EXPECT_LT(status_of_process("VmHWM") - before, 4 * kTensor) << "the checks read it in pieces";
    std::vector<at::Tensor> held;
    for (const auto& [key, tensor] : checkpoint.tensors) held.push_back(tensor.read());
    const auto taken = status_of_process("VmHWM") - before;
    EXPECT_GE(taken, (kTensors - 2) * kTensor) << "not what this test measures";
    EXPECT_LT(taken, (kTensors + 3) * kTensor) << name;
  }
}

TEST_F(CheckpointFile, RefusesNulsAndKeysThatOccurTwice) {
  const auto args = std::string(kArgs);
  EXPECT_THAT(refused(zipped(with("args.json", args + '\0'))), HasSubstr("a NUL at byte"));
  EXPECT_THAT(refused(zipped(with("args.json", R"({"__name__": "a", "__name__": "b"})"))),
              HasSubstr("\"__name__\" occurs twice"));
  EXPECT_THAT(refused(zipped(with("metadata.json", std::string(1'000'000, '[')))),
              HasSubstr("nested too deeply"));
}

TEST_F(CheckpointFile, EveryChangedByteOfTheModelIsSeen) {
  const auto good = zipped(small_files());
  const auto end = good.find("args.json");
  for (std::size_t i = 30; i + 30 < end; ++i) {
    auto bad = good;
    bad[i] ^= 0x10;
    EXPECT_NE(refused(bad), "") << "byte " << i;
  }
  const auto tar = test::tar_of(small_files());
  const auto weights = tar.find(floats(12));
  for (std::size_t i = weights; i < weights + 48; i += 5) {
    auto bad = tar;
    bad[i] ^= 1;
    EXPECT_THAT(refused(bad), HasSubstr("archive/data/0 is corrupt: its CRC-32 differs"));
  }
  // a wrong inner checksum under a right outer one
  auto model = small_model();
  model[model.rfind(floats(4)) + 3] ^= 1;
  EXPECT_THAT(refused(zipped(with("model.pt", model))), HasSubstr("archive/data/1 is corrupt"));
}

TEST_F(CheckpointFile, RefusesTruncatedFiles) {
  for (const auto& good : {zipped(small_files()), test::tar_of(small_files()),
                           test::gzip_of(test::tar_of(small_files()))}) {
    for (std::size_t size = 0; size + 1024 < good.size(); size += 97)
      EXPECT_NE(refused(good.substr(0, size)), "") << size;
  }
}

TEST_F(CheckpointFile, NamesWhatIsWrong) {
  const auto pickle = [](const Files& items, const Files& storages) {
    return test::torch_archive_of(test::pickled::state_dict(items), storages);
  };
  const auto a = test::pickled::tensor("0", 12, {12}, {1});
  const auto args = [](const std::string& name, const std::string& module) {
    return fmt::format(R"({{"__name__": "{}", "__module__": "{}", "__args__": {{}}}})", name,
                       module);
  };
  const std::pair<Files, const char*> cases[] = {
      {{}, "holds no member named model.pt"},
      {{small_files()[0], small_files()[1]}, "holds no member named metadata.json"},
      {with("args.json", "{"), "args.json: expected a JSON object"},
      {with("args.json", "[]"), "args.json: expected a JSON object"},
      {with("args.json", "{}"), "expected a text named __name__"},
      {with("args.json", args("HealDA", "physicsnemo.models.healda")),
       "the class physicsnemo.models.healda.HealDA"},
      {with("args.json", args("AFNO", "physicsnemo.models.afno")), "physicsnemo.models.afno.AFNO"},
      {with("args.json", R"({"__name__": "VideoHealDA", "__module__": "physicsnemo.x"})"),
       "an object named __args__"},
      {with("metadata.json", R"({"mdlus_file_version": "9"})"),
       "expected mdlus_file_version 0.1.0"},
      {with("metadata.json", "{}"), "expected mdlus_file_version 0.1.0, got none"},
      {with("model.pt", "no zip"), "model.pt: expected the zip format"},
      {with("model.pt", zipped({{"x", "y"}})), "holds no data.pkl"},
      {with("model.pt", zipped({{"a/data.pkl", "y"}, {"b/data.pkl", "y"}})), "two state dicts"},
      {with("model.pt", zipped({{"a/data.pkl", "y"}, {"a/byteorder", "big"}})), "little endian"},
      {with("model.pt", pickle({{"a", a}}, {})), "holds no member named archive/data/0"},
      {with("model.pt", pickle({{"a", a}}, {{"0", floats(11)}})),
       "12 elements of Float, but archive/data/0 has 44 bytes"},
      {with("model.pt", pickle({{"a", test::pickled::tensor("0", int64_t{1} << 62, {1}, {1})}},
                               {{"0", floats(1)}})),
       "announces a storage of 4611686018427387904 elements"},
      {with("model.pt",
            pickle({{"a", a}, {"b", test::pickled::tensor("0", 12, {1}, {1}, 0, "IntStorage")}},
                   {{"0", floats(12)}})),
       "storage 0 is given two types"},
  };
  for (const auto& [files, reason] : cases) {
    EXPECT_THAT(refused(zipped(files)), testing::AllOf(HasSubstr(reason), HasSubstr("x.mdlus")));
    EXPECT_THAT(refused(test::tar_of(files)), HasSubstr(files.empty() ? "x.mdlus" : reason));
  }
  EXPECT_THAT(refused("neither"), HasSubstr("neither a zip nor a tar"));
  EXPECT_THAT(refused(""), HasSubstr("neither a zip nor a tar"));
  EXPECT_THAT(refused("x", "x.ckpt"), HasSubstr("ends in .safetensors or .mdlus"));
  EXPECT_THAT(test::refusal([&] { read_checkpoint(folder_ / "none.mdlus"); }),
              HasSubstr("none.mdlus"));
  EXPECT_THAT(test::refusal([&] { read_checkpoint(folder_.path() / "none.safetensors"); }),
              HasSubstr("none.safetensors"));
}

TEST_F(CheckpointFile, PlainSafetensorsTakeTheirConfigurationFromBeside) {
  const auto path = folder_ / "plain.safetensors";
  write_safetensors(path, {{{"a", at::ones({2})}}, {}});
  EXPECT_THAT(test::refusal([&] { read_checkpoint(path); }), HasSubstr("no plain.json beside it"));
  write_text(folder_ / "plain.json", R"({"hidden_size": 32})");
  EXPECT_EQ(read_checkpoint(path).config["hidden_size"], 32);
  write_text(folder_ / "plain.json", kArgs);
  EXPECT_EQ(read_checkpoint(path).config["hidden_size"], 64);
  EXPECT_EQ(read_checkpoint(path).container, "safetensors");
  write_text(folder_ / "plain.json", "[1]");
  EXPECT_THAT(test::refusal([&] { read_checkpoint(path); }), HasSubstr("plain.json"));
}

TEST_F(CheckpointFile, OwnMetadataMustBeRight) {
  const auto path = folder_ / "own.safetensors";
  std::map<std::string, std::string> metadata = {{"note", "kept"}};
  checkpoint::write_own_metadata(R"({"hidden_size": 32})", metadata);
  const auto refused_with = [&](const std::string& key, const std::string& value) {
    auto changed = metadata;
    changed[key] = value;
    write_safetensors(path, {{{"a", at::ones({2})}}, changed});
    return test::refusal([&] { read_checkpoint(path); });
  };
  EXPECT_THAT(refused_with("halcyon_format_version", "2"), HasSubstr("expected format version 1"));
  EXPECT_THAT(refused_with("halcyon_class", "Other"), HasSubstr("the class Other"));
  EXPECT_THAT(refused_with("halcyon_config", "{"), HasSubstr("halcyon_config"));
  EXPECT_EQ(refused_with("note", "kept"), "");
  EXPECT_EQ(read_checkpoint(path).metadata.at("note"), "kept");
  EXPECT_EQ(read_checkpoint(path).metadata.size(), 1u);
}

TEST_F(CheckpointFile, GoldenHoldsTheGoldenWeights) {
  HALCYON_NEEDS_SHARED();
  const auto params = test::golden("healda/healda_tiny").under("param.");
  const auto path = test::shared_dir() / "golden/healda/healda_tiny.mdlus";
  const auto members = test::unzip(read_text(path));
  for (const auto& bytes : {read_text(path), test::tar_of(members), zipped(members, true),
                            test::gzip_of(test::tar_of(members))}) {
    const auto checkpoint = read(bytes);
    ASSERT_EQ(checkpoint.tensors.size(), params.size());
    for (const auto& [name, tensor] : params) {
      ASSERT_TRUE(checkpoint.tensors.contains(name)) << name;
      EXPECT_TRUE(identical(checkpoint.tensors.at(name).read(), tensor)) << name;
    }
    EXPECT_EQ(checkpoint.config["out_channels"], 5);
    EXPECT_TRUE(checkpoint.config["temporal_causal_window"].is_null());
  }
}

}  // namespace
}  // namespace halcyon
