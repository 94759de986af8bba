// SPDX-License-Identifier: Apache-2.0
// Damages good files in thousands of ways (seeded, so each run is the same): whatever happens, a
// reader must return or throw Error(input), quickly; and where checksums cover the weights, what it
// returns must be the weights.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/model/checkpoint/mdlus.h"
#include "halcyon/model/checkpoint/pickle.h"
#include "tests/model/checkpoint_files.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

constexpr int kCases = 3000;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  std::string operator()(std::string bytes) {
    const auto changes = 1 + below(3);
    for (std::size_t i = 0; i < changes && !bytes.empty(); ++i) {
      switch (below(6)) {
        case 0:
          bytes[below(bytes.size())] ^= static_cast<char>(1 << below(8));
          break;
        case 1:
          bytes[below(bytes.size())] = static_cast<char>(below(256));
          break;
        case 2:
          bytes.resize(below(bytes.size()));
          break;
        case 3:
          lie(bytes);
          break;
        case 4:
          bytes.insert(below(bytes.size()), bytes.substr(below(bytes.size()), below(64)));
          break;
        default:
          bytes.erase(below(bytes.size()), below(64));
      }
    }
    return bytes;
  }

 private:
  std::size_t below(std::size_t n) { return random_() % n; }
  // A number of 2, 4 or 8 bytes becomes an unlikely one.
  void lie(std::string& bytes) {
    constexpr std::uint64_t kNumbers[] = {0,          1,          0x7fff,      0xffff,
                                          0x7fffffff, 0xffffffff, 1ull << 40,  ~0ull >> 1,
                                          ~0ull,      1ull << 63, bytes_64kiB, ~0ull - 7};
    const std::size_t size = std::size_t{2} << below(3);
    if (bytes.size() < size) return;
    const auto value = kNumbers[below(std::size(kNumbers))];
    bytes.replace(below(bytes.size() - size + 1), size,
                  std::string(reinterpret_cast<const char*>(&value), size));
  }
  static constexpr std::uint64_t bytes_64kiB = 1 << 16;

  std::mt19937 random_;
};

// Runs read(damaged) for many damaged versions; anything but Error(input) fails the test.
template <class Read>
void expect_no_surprise(const std::string& good, unsigned seed, Read&& read) {
  Mutator mutate(seed);
  int accepted = 0;
  for (int i = 0; i < kCases; ++i) {
    const auto bytes = mutate(good);
    try {
      read(bytes);
      ++accepted;
    } catch (const Error& e) {
      ASSERT_EQ(e.kind(), ErrorKind::input) << "case " << i << ": " << e.what();
    }
  }
  EXPECT_LT(accepted, kCases);
}

std::string floats(int64_t count) {
  const auto values = at::arange(count).to(at::kFloat).sin();
  return {static_cast<const char*>(values.const_data_ptr()), static_cast<std::size_t>(4 * count)};
}

std::string pickle() {
  return test::pickled::state_dict({{"a", test::pickled::tensor("0", 12, {3, 4}, {4, 1})},
                                    {"b", test::pickled::tensor("1", 4, {2}, {1}, 1)}});
}

test::Files files() {
  return {{"model.pt", test::torch_archive_of(pickle(), {{"0", floats(12)}, {"1", floats(4)}})},
          {"args.json", R"({"__name__": "VideoHealDA", "__module__": "physicsnemo.x",
                            "__args__": {"hidden_size": 64}})"},
          {"metadata.json", R"({"mdlus_file_version": "0.1.0"})"}};
}

void read_mdlus(const std::string& bytes) {
  const auto checkpoint = checkpoint::read_mdlus(test::blob_of(bytes), "damaged.mdlus");
  const auto values = at::arange(12).to(at::kFloat).sin();
  for (const auto& [name, stored] : checkpoint.tensors) {
    const auto tensor = stored.read();
    ASSERT_TRUE(name == "a" || name == "b");
    EXPECT_TRUE(
        test::identical(tensor, name == "a" ? values.reshape({3, 4}) : values.slice(0, 1, 3)));
  }
}

TEST(CheckpointMutation, Zip) {
  std::vector<test::ZipEntry> entries, deflated;
  for (const auto& [name, data] : files()) {
    entries.push_back({name, data, false, true});
    deflated.push_back({name, data, true});
  }
  expect_no_surprise(test::zip_of(entries, /*zip64_end=*/true), 1, read_mdlus);
  expect_no_surprise(test::zip_of(deflated), 2, read_mdlus);
}

TEST(CheckpointMutation, Tar) {
  expect_no_surprise(test::tar_of(files(), test::TarNames::pax), 3, read_mdlus);
  expect_no_surprise(test::gzip_of(test::tar_of(files(), test::TarNames::gnu)), 4, read_mdlus);
}

TEST(CheckpointMutation, Pickle) {
  expect_no_surprise(pickle(), 5, [](const std::string& bytes) {
    for (const auto& tensor :
         checkpoint::read_state_dict_pickle(test::blob_of(bytes), {"load", "damaged"})) {
      std::int64_t reach = tensor.offset + 1;
      for (std::size_t i = 0; i < tensor.sizes.size(); ++i)
        reach += (tensor.sizes[i] - 1) * tensor.strides[i];
      ASSERT_TRUE(c10::multiply_integers(tensor.sizes) == 0 || reach <= tensor.storage_numel);
    }
  });
}

TEST(CheckpointMutation, Safetensors) {
  const test::TemporaryFolder folder;
  const auto path = folder / "damaged.safetensors";
  TensorFile content{{{"a", at::arange(12).reshape({3, 4})}, {"b", at::ones({2})}}, {}};
  checkpoint::write_own_metadata(R"({"hidden_size": 64})", content.metadata);
  write_safetensors(path, content);
  expect_no_surprise(read_text(path), 6, [&](const std::string& bytes) {
    std::filesystem::remove(path);
    std::ofstream(path, std::ios::binary) << bytes;
    for (const auto& [name, stored] : read_checkpoint(path).tensors) stored.read().sum();
  });
}

}  // namespace
}  // namespace halcyon
