// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/state_dict.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>

#include "halcyon/base/error.h"
#include "halcyon/base/log.h"

namespace halcyon {

namespace {

std::string shape_text(at::IntArrayRef sizes) {
  return fmt::format("({})", fmt::join(sizes.begin(), sizes.end(), ", "));
}

bool convertible(at::ScalarType from, at::ScalarType to) {
  return from == to || (c10::isFloatingType(from) && c10::isFloatingType(to));
}

// "a" or "b"
std::string quoted(const std::set<std::string>& texts) {
  return fmt::format("\"{}\"", fmt::join(texts, "\" or \""));
}

// "2 missing keys: a, b"
void append(std::string& text, const std::vector<std::string>& keys, std::string_view what) {
  if (keys.empty()) return;
  text += fmt::format("{}{} {} key{}: {}", text.empty() ? "" : "; ", keys.size(), what,
                      keys.size() == 1 ? "" : "s", fmt::join(keys, ", "));
}

using Strings = std::vector<std::string>;

// What torch's wrappers put into the keys of a state dict, also in the middle.
bool is_wrapper(std::string_view part) {
  return part == "module" || part == "_orig_mod" || part == "_fsdp_wrapped_module" ||
         part == "_checkpoint_wrapped_module";
}

// The key without them; adds them to `wrappers`.
std::string unwrapped(std::string_view key, std::set<std::string>& wrappers) {
  Strings parts;
  for (std::size_t begin = 0; begin <= key.size();) {
    const auto end = std::min(key.find('.', begin), key.size());
    const auto part = key.substr(begin, end - begin);
    if (is_wrapper(part)) {
      wrappers.insert(std::string(part) + ".");
    } else {
      parts.emplace_back(part);
    }
    begin = end + 1;
  }
  return fmt::format("{}", fmt::join(parts, "."));
}

// The name among `names` that the key becomes without its first parts or without wrappers; adds
// what was taken off to `prefixes`.
std::optional<std::string> name_inside(const std::string& key, const std::set<std::string>& names,
                                       std::set<std::string>& prefixes) {
  for (auto dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
    const auto rest = key.substr(dot + 1);
    if (!names.contains(rest)) continue;
    prefixes.insert(key.substr(0, dot + 1));
    return rest;
  }
  std::set<std::string> wrappers;
  const auto name = unwrapped(key, wrappers);
  if (!names.contains(name)) return std::nullopt;
  prefixes.merge(wrappers);
  return name;
}

// Takes the pairs out of both lists whose keys are equal but for a prefix of those in `longer`; the
// prefixes, empty when that explains less than half of `shorter`.
std::set<std::string> take_prefixed(Strings& longer, Strings& shorter,
                                    const std::set<std::string>& wanted) {
  std::set<std::string> prefixes, found;
  Strings rest;
  for (const auto& key : longer) {
    if (const auto name = name_inside(key, wanted, prefixes)) {
      found.insert(*name);
    } else {
      rest.push_back(key);
    }
  }
  if (found.empty() || 2 * found.size() < shorter.size()) return {};
  longer = std::move(rest);
  std::erase_if(shorter, [&](const auto& name) { return found.contains(name); });
  return prefixes;
}

// The cause that missing and unexpected keys have in common, which are then taken off the lists:
// the state dict of a wrapped model, or of a part of one.
std::string prefix_trouble(Strings& missing, Strings& unexpected,
                           const std::set<std::string>& absent) {
  const auto before = unexpected.size();
  auto prefixes = take_prefixed(unexpected, missing, absent);
  if (!prefixes.empty()) {
    return fmt::format(
        "{} keys have the prefix {} that the model's names lack, as wrappers put it there "
        "(DistributedDataParallel, torch.compile, FSDP): save the state dict of the model inside "
        "the wrapper, or take the prefix off the keys",
        before - unexpected.size(), quoted(prefixes));
  }
  prefixes = take_prefixed(missing, unexpected, {unexpected.begin(), unexpected.end()});
  if (prefixes.empty()) return "";
  return fmt::format(
      "{} keys lack the prefix {} that the model's names have: save the state dict of the whole "
      "model, or put the prefix before the keys",
      before - unexpected.size(), quoted(prefixes));
}

void put(at::Tensor& target, const at::Tensor& value, LoadMode mode) {
  const at::NoGradGuard no_grad;
  if (mode == LoadMode::copy) {
    target.copy_(value);
  } else {
    target.set_data(value.to(target.device()).contiguous());
  }
}

}  // namespace

bool is_retired_key(const std::string& key) {
  if (key.ends_with("device_buffer")) return true;
  const auto dot = key.rfind('.');
  const auto last = dot == std::string::npos ? key : key.substr(dot + 1);
  const auto holds = [&](std::string_view part) { return key.find(part) != std::string::npos; };
  constexpr std::array<std::string_view, 7> kRotary = {
      "rope_cos", "rope_sin", "freqs_cos", "freqs_sin", "cos_cached", "sin_cached", "inv_freq"};
  if (std::find(kRotary.begin(), kRotary.end(), last) != kRotary.end()) return true;
  if ((holds("rope") || holds("rotary")) && (last == "cos" || last == "sin" || last == "freqs"))
    return true;
  return holds("calendar") &&
         (last == "lon" || last == "freqs" || last == "frequencies" || last == "freq");
}

bool is_buffer_key(const std::string& key) {
  return key.ends_with("map_noise.freqs");
}

std::map<std::string, at::Tensor> state_dict(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> tensors;
  const auto add = [&](const auto& named) {
    for (const auto& item : named)
      if (item.value().defined()) tensors.emplace(item.key(), item.value().detach());
  };
  add(module.named_parameters());
  add(module.named_buffers());
  return tensors;
}

StoredState as_stored(const std::map<std::string, at::Tensor>& tensors) {
  StoredState state;
  for (const auto& [name, tensor] : tensors) {
    HALCYON_CHECK_KIND(tensor.defined(), input, "load_state_dict", "{} holds no tensor", name);
    state.emplace(name, StoredTensor{tensor.scalar_type(), tensor.sizes().vec(),
                                     [value = tensor.detach()] { return value; }});
  }
  return state;
}

LoadReport compare_state_dict(const torch::nn::Module& module, const StoredState& state,
                              bool strict, const std::string& origin) {
  const auto targets = state_dict(module);
  LoadReport report;
  std::vector<std::string> misshapen, mistyped;
  for (const auto& [key, stored] : state) {
    const auto target = targets.find(key);
    if (target == targets.end()) {
      (is_retired_key(key) ? report.retired : report.unexpected).push_back(key);
    } else if (target->second.sizes() != at::IntArrayRef(stored.sizes)) {
      misshapen.push_back(fmt::format("{} (expected {}, got {})", key,
                                      shape_text(target->second.sizes()),
                                      shape_text(stored.sizes)));
    } else if (!convertible(stored.dtype, target->second.scalar_type())) {
      mistyped.push_back(fmt::format("{} (expected {}, got {})", key,
                                     c10::toString(target->second.scalar_type()),
                                     c10::toString(stored.dtype)));
    }
  }
  for (const auto& [key, target] : targets) {
    if (!state.contains(key)) (is_buffer_key(key) ? report.kept : report.missing).push_back(key);
  }

  auto missing = report.missing, unexpected = report.unexpected;
  std::set<std::string> absent;
  for (const auto& [key, target] : targets)
    if (!state.contains(key)) absent.insert(key);
  report.prefix = prefix_trouble(missing, unexpected, absent);

  std::string complaint;
  if (strict) {
    complaint = report.prefix;
    append(complaint, missing, "missing");
    append(complaint, unexpected, "unexpected");
  }
  append(complaint, misshapen, "misshapen");
  append(complaint, mistyped, "mistyped");
  HALCYON_CHECK_KIND(complaint.empty(), input, "load_state_dict", "{}{}{}", origin,
                     origin.empty() ? "" : ": ", complaint);

  return report;
}

LoadReport load_state_dict(torch::nn::Module& module, const StoredState& state, bool strict,
                           LoadMode mode, const std::string& origin) {
  LoadReport report = compare_state_dict(module, state, strict, origin);
  const std::string prefix = origin.empty() ? "load_state_dict" : origin;
  if (!report.prefix.empty()) log::warn("{}: {}", prefix, report.prefix);
  if (!report.retired.empty()) {
    log::info("{}: passed over {} keys of an older format: {}", prefix, report.retired.size(),
              fmt::join(report.retired, ", "));
  }
  if (!report.kept.empty()) {
    log::info("{}: computed what the file does not hold: {}", prefix, fmt::join(report.kept, ", "));
  }
  const auto load = [&](auto named) {
    for (auto& item : named) {
      const auto stored = state.find(item.key());
      if (item.value().defined() && stored != state.end())
        put(item.value(), stored->second.read(), mode);
    }
  };
  load(module.named_parameters());
  load(module.named_buffers());
  return report;
}

LoadReport load_state_dict(torch::nn::Module& module,
                           const std::map<std::string, at::Tensor>& tensors, bool strict,
                           LoadMode mode, const std::string& origin) {
  return load_state_dict(module, as_stored(tensors), strict, mode, origin);
}

}  // namespace halcyon
