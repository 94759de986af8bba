// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/torch_archive.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <set>
#include <utility>

#include "halcyon/base/large_pages.h"
#include "halcyon/model/checkpoint/pickle.h"
#include "halcyon/model/checkpoint/zip.h"

namespace halcyon::checkpoint {

namespace {

std::int64_t bytes_of(std::int64_t elements, at::ScalarType type) {
  return elements * static_cast<std::int64_t>(c10::elementSize(type));
}

// The elements of the storage from the view's first to its last; 0 for an empty one.
std::int64_t reach_of(const PickledTensor& t) {
  std::int64_t reach = 1;
  for (std::size_t i = 0; i < t.sizes.size(); ++i) {
    if (t.sizes[i] == 0) return 0;
    reach += (t.sizes[i] - 1) * t.strides[i];
  }
  return reach;
}

bool is_contiguous(const PickledTensor& t) {
  std::int64_t stride = 1;
  for (auto i = t.sizes.size(); i > 0; --i) {
    if (t.sizes[i - 1] != 1 && t.strides[i - 1] != stride) return false;
    stride *= t.sizes[i - 1];
  }
  return true;
}

class TorchArchive {
 public:
  TorchArchive(ZipArchive zip, std::string root, std::shared_ptr<InflateBudget> budget)
      : zip_(std::move(zip)), root_(std::move(root)), budget_(std::move(budget)) {}

  std::string member(const PickledTensor& t) const { return root_ + "data/" + t.storage; }
  const ZipArchive& zip() const { return zip_; }

  at::Tensor read(const PickledTensor& t) {
    const auto reach = reach_of(t);
    if (reach == 0) return at::empty(t.sizes, t.dtype);
    // a bool other than 0 and 1 must not exist
    auto tensor = elements(t, reach, t.dtype == at::kBool ? at::kByte : t.dtype);
    tensor = is_contiguous(t)
                 ? tensor.view(t.sizes)
                 : tensor.as_strided(t.sizes, t.strides).clone(at::MemoryFormat::Contiguous);
    return t.dtype == at::kBool ? tensor.ne(0) : tensor;
  }

 private:
  // (count,) in memory of its own.
  at::Tensor elements(const PickledTensor& t, std::int64_t count, at::ScalarType type) {
    const auto offset = static_cast<std::uint64_t>(bytes_of(t.offset, t.dtype));
    const Blob content = storage(t);
    auto flat = on_large_pages(at::empty({count}, type));
    content.read_in_pieces(offset,
                           {static_cast<std::byte*>(flat.mutable_data_ptr()), flat.nbytes()});
    return flat;
  }

  // A deflated storage is kept for the next tensor, which often shares it.
  Blob storage(const PickledTensor& t) {
    const auto name = member(t);
    if (!zip_.member(name).deflated()) return zip_.stored(name);
    if (inflated_.first != t.storage) {
      if (!known_.insert(t.storage).second)  // inflated before: the first time is spent already
        budget_->spend(zip_.member(name).size, zip_.source().inside(name));
      inflated_ = {};
      inflated_ = {t.storage, zip_.inflated(name)};
    }
    return inflated_.second;
  }

  ZipArchive zip_;
  std::string root_;
  std::shared_ptr<InflateBudget> budget_;
  std::pair<std::string, Blob> inflated_;
  std::set<std::string> known_;
};

// The folder that all members of torch's archive are in.
std::string find_root(const ZipArchive& zip) {
  constexpr std::string_view kPickle = "data.pkl";
  std::string root;
  for (const auto& [name, member] : zip.members()) {
    const auto slash = name.find('/');
    if (slash == std::string::npos || name.substr(slash + 1) != kPickle) continue;
    zip.source().check(root.empty(), "holds two state dicts");
    root = name.substr(0, slash + 1);
  }
  zip.source().check(!root.empty(), "holds no data.pkl: not a file of torch.save");
  return root;
}

}  // namespace

StoredState read_torch_archive(const Blob& bytes, const std::shared_ptr<InflateBudget>& budget,
                               const Source& source, std::optional<std::uint32_t> expected_crc) {
  source.check(ZipArchive::looks_like(bytes),
               "expected the zip format that torch.save writes since torch 1.6");
  ZipArchive zip(bytes, budget, source);
  const auto root = find_root(zip);
  constexpr std::uint64_t kMaxWord = 64;
  const std::string byteorder =
      zip.has(root + "byteorder") ? std::string(zip.read(root + "byteorder", kMaxWord).text()) : "";
  source.check(byteorder.empty() || byteorder == "little",
               "expected little endian data, got \"{}\"", printable(byteorder));
  const auto pickle = zip.read(root + "data.pkl", kMaxPickle);
  const auto tensors = read_state_dict_pickle(pickle, source.inside(root + "data.pkl"));

  const auto archive = std::make_shared<TorchArchive>(std::move(zip), root, budget);
  StoredState state;
  std::map<std::string, at::ScalarType> types;
  std::uint64_t stored = 0, wanted = 0;
  for (const auto& t : tensors) {
    const auto& member = archive->zip().member(archive->member(t));
    std::int64_t nbytes = 0;
    source.check(
        !__builtin_mul_overflow(t.storage_numel,
                                static_cast<std::int64_t>(c10::elementSize(t.dtype)), &nbytes) &&
            static_cast<std::uint64_t>(nbytes) == member.size,
        "tensor {} announces a storage of {} elements of {}, but {} has {} bytes", t.name,
        t.storage_numel, c10::toString(t.dtype), archive->member(t), member.size);
    const auto [type, is_new] = types.emplace(t.storage, t.dtype);
    source.check(type->second == t.dtype, "storage {} is given two types", t.storage);
    if (is_new) {
      stored += member.size;
      if (member.deflated()) budget->spend(member.size, source.inside(archive->member(t)));
    }
    // the pickle's reader has checked that these numbers of elements fit
    const auto elements = std::max(c10::multiply_integers(t.sizes), reach_of(t));
    std::uint64_t nbytes_read = 0;
    source.check(!__builtin_mul_overflow(static_cast<std::uint64_t>(elements),
                                         c10::elementSize(t.dtype), &nbytes_read) &&
                     !__builtin_add_overflow(wanted, nbytes_read, &wanted),
                 "tensor {} is impossibly large", t.name);
    state.emplace(t.name,
                  StoredTensor{t.dtype, t.sizes, [archive, t] { return archive->read(t); }});
  }
  // views that overlap or are expanded take more than the file holds
  if (wanted > stored) budget->spend(wanted - stored, source);
  const auto crc = archive->zip().check_stored();
  source.check(!expected_crc || crc == *expected_crc, "is corrupt: its CRC-32 differs");
  return state;
}

}  // namespace halcyon::checkpoint
