// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/torch_archive.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <utility>

#include "halcyon/model/checkpoint/pickle.h"
#include "halcyon/model/checkpoint/zip.h"

namespace halcyon::checkpoint {

namespace {

class TorchArchive {
 public:
  TorchArchive(ZipArchive zip, std::string root) : zip_(std::move(zip)), root_(std::move(root)) {}

  std::string member(const PickledTensor& t) const { return root_ + "data/" + t.storage; }
  const ZipArchive& zip() const { return zip_; }

  at::Tensor read(const PickledTensor& t) {
    const auto options = at::TensorOptions().dtype(t.dtype);
    if (std::find(t.sizes.begin(), t.sizes.end(), 0) != t.sizes.end())
      return at::empty(t.sizes, options);
    at::Tensor view = at::empty({0}, options.dtype(storage_type(t.dtype)));
    view.set_(storage(t), t.offset, t.sizes, t.strides);
    return t.dtype == at::kBool ? view.ne(0) : view;  // a bool other than 0 and 1 must not exist
  }

 private:
  static at::ScalarType storage_type(at::ScalarType type) {
    return type == at::kBool ? at::kByte : type;
  }

  // Tensors that share a storage in the file share it in memory.
  c10::Storage storage(const PickledTensor& t) {
    const auto known = open_.find(t.storage);
    if (known != open_.end()) {
      if (auto alive = known->second.lock()) return c10::Storage(std::move(alive));
    }
    const Blob content = zip_.read_unchecked(member(t));
    const auto options = at::TensorOptions().dtype(storage_type(t.dtype));
    auto* address = content.bytes().data();
    at::Tensor flat;
    if (reinterpret_cast<std::uintptr_t>(address) % c10::elementSize(t.dtype) == 0) {
      flat = at::from_blob(
          address, {t.storage_numel}, [keep = content.owner()](void*) {}, options);
    } else {
      flat = at::empty({t.storage_numel}, options);
      std::memcpy(flat.mutable_data_ptr(), address, content.size());
      content.release_pages(0, content.size());
    }
    open_.insert_or_assign(
        t.storage, c10::weak_intrusive_ptr<c10::StorageImpl>(flat.storage().getWeakStorageImpl()));
    return flat.storage();
  }

  ZipArchive zip_;
  std::string root_;
  std::map<std::string, c10::weak_intrusive_ptr<c10::StorageImpl>> open_;
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

StoredState read_torch_archive(const Blob& bytes, std::shared_ptr<InflateBudget> budget,
                               const Source& source, std::optional<std::uint32_t> expected_crc) {
  source.check(ZipArchive::looks_like(bytes),
               "expected the zip format that torch.save writes since torch 1.6");
  ZipArchive zip(bytes, std::move(budget), source);
  const auto root = find_root(zip);
  const auto byteorder = zip.has(root + "byteorder") ? zip.read(root + "byteorder") : Blob();
  source.check(byteorder.size() == 0 || byteorder.text() == "little",
               "expected little endian data, got \"{}\"", printable(byteorder.text()));
  const auto pickle = zip.read(root + "data.pkl");
  const auto tensors = read_state_dict_pickle(pickle, source.inside(root + "data.pkl"));

  const auto archive = std::make_shared<TorchArchive>(std::move(zip), root);
  StoredState state;
  std::map<std::string, at::ScalarType> types;
  for (const auto& t : tensors) {
    const auto& member = archive->zip().member(archive->member(t));
    std::int64_t nbytes = 0;
    source.check(
        !__builtin_mul_overflow(t.storage_numel,
                                static_cast<std::int64_t>(c10::elementSize(t.dtype)), &nbytes) &&
            static_cast<std::uint64_t>(nbytes) == member.size,
        "tensor {} announces a storage of {} elements of {}, but {} has {} bytes", t.name,
        t.storage_numel, c10::toString(t.dtype), archive->member(t), member.size);
    source.check(types.emplace(t.storage, t.dtype).first->second == t.dtype,
                 "storage {} is given two types", t.storage);
    state.emplace(t.name,
                  StoredTensor{t.dtype, t.sizes, [archive, t] { return archive->read(t); }});
  }
  const auto crc = archive->zip().check_stored();
  source.check(!expected_crc || crc == *expected_crc, "is corrupt: its CRC-32 differs");
  return state;
}

}  // namespace halcyon::checkpoint
