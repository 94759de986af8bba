// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/model/checkpoint/source.h"
#include "halcyon/sphere/healpix.h"

namespace halcyon {
namespace fs = std::filesystem;
using checkpoint::Source;

namespace {

// What makes the model's constructor work or allocate (the weights do not: they are placeholders)
// must be in proportion to the tensors that the file really holds.
void check_plausible(const HealDAConfig& config, const StoredState& tensors, const Source& source) {
  constexpr int64_t kMaxFinePixels = int64_t{1} << 28, kSmall = int64_t{1} << 20,
                    kLarge = int64_t{1} << 31;
  int64_t elements = 0;
  for (const auto& [name, tensor] : tensors) elements += c10::multiply_integers(tensor.sizes);
  const int64_t most = std::clamp(elements, kSmall, kLarge);
  const auto arguments = config.to_json();
  for (const auto& [name, value] : arguments.items()) {
    source.check(!value.is_number() || (value >= 0 && value <= most),
                 "announces {} = {}, but holds {} numbers", name, value.dump(), elements);
  }
  source.check(std::cmp_less_equal(config.num_layers, tensors.size()),
               "announces {} layers, but holds {} tensors", config.num_layers, tensors.size());
  source.check(config.level_model <= config.level_in && config.level_in <= healpix::kMaxLevel,
               "announces the impossible levels {} and {}", config.level_in, config.level_model);
  const int64_t pixels = config.region ? static_cast<int64_t>(config.region->size())
                                       : int64_t{12} << (2 * config.level_model);
  const int64_t finer = config.level_in - config.level_model;
  source.check(pixels <= elements && pixels <= kMaxFinePixels >> (2 * finer),
               "announces {} tokens at level {} for fields at level {}, but holds {} numbers",
               pixels, config.level_model, config.level_in, elements);
  source.check(config.max_seq_len <= most / std::max<int64_t>(config.hidden_size, 1),
               "announces rotary tables of {} positions, but holds {} numbers", config.max_seq_len,
               elements);
}

// The model of the configuration, without weights.
HealDA build(const Checkpoint& checkpoint, const Source& source) {
  try {
    const auto config = HealDAConfig::from_json(checkpoint.config);
    check_plausible(config, checkpoint.tensors, source);
    return HealDA(config, nn::Parameters::placeholders);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::input) throw;
    source.refuse(fmt::format("its configuration is impossible: {}", e.what()));
  }
}

// Whatever LibTorch makes of a file's numbers is an error of the file.
template <class F>
auto reading(const Source& source, F&& f) {
  try {
    return f();
  } catch (const c10::Error& e) {
    source.refuse(e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    source.refuse("not enough memory");
  }
}

}  // namespace

HealDA load_checkpoint(const fs::path& path) {
  return load_checkpoint(read_checkpoint(path));
}

HealDA load_checkpoint(const Checkpoint& checkpoint) {
  const Source source("load_checkpoint", checkpoint.path.string());
  return reading(source, [&] {
    HealDA model = build(checkpoint, source);
    load_state_dict(*model, checkpoint.tensors, /*strict=*/true, LoadMode::assign,
                    checkpoint.path.string());
    model->eval();
    return model;
  });
}

void check_complete(const Checkpoint& checkpoint) {
  const Source source("load_checkpoint", checkpoint.path.string());
  reading(source, [&] {
    compare_state_dict(*build(checkpoint, source), checkpoint.tensors, /*strict=*/true,
                       checkpoint.path.string());
  });
}

void save_checkpoint(const HealDA& model, const fs::path& path,
                     std::map<std::string, std::string> metadata) {
  HALCYON_CHECK(path.extension() == ".safetensors", "save_checkpoint",
                "expected a path that ends in .safetensors, got {}", path.string());
  TensorFile content{state_dict(*model), std::move(metadata)};
  for (const auto& [name, tensor] : content.tensors)
    HALCYON_CHECK(!nn::is_placeholder(tensor), "save_checkpoint",
                  "expected a model with weights, got none for {}", name);
  checkpoint::write_own_metadata(model->config().to_json().dump(), content.metadata);
  write_safetensors(path, content);
}

}  // namespace halcyon
