// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <set>
#include <unordered_map>
#include <utility>

#include "halcyon/model/checkpoint/pickle_opcodes.h"

namespace halcyon::checkpoint {

namespace {

constexpr std::size_t kMaxStack = 1 << 18, kMaxMemo = 1 << 21, kMaxRank = 32, kMaxName = 512;

enum class Kind : std::uint8_t {
  mark,
  none,
  boolean,
  integer,
  string,
  tuple,
  dict,
  global,
  storage,
  tensor
};

const char* kind_name(Kind kind) {
  static constexpr const char* kNames[] = {"mark",  "None", "bool",   "int",     "str",
                                           "tuple", "dict", "global", "storage", "tensor"};
  return kNames[static_cast<std::size_t>(kind)];
}

// Containers live in the interpreter and are named by index: no ownership, so neither cycles nor
// deep nesting can leak or exhaust the stack.
struct Value {
  Kind kind = Kind::none;
  std::int64_t number = 0;  // the integer, or the index of the object
  std::string_view text;    // into the pickle
};

enum class Global { ordered_dict, rebuild_tensor, rebuild_parameter, storage_type };

struct GlobalEntry {
  std::string_view module, name;
  Global role;
  at::ScalarType dtype = at::ScalarType::Undefined;
};

constexpr GlobalEntry kGlobals[] = {
    {"collections", "OrderedDict", Global::ordered_dict},
    {"torch._utils", "_rebuild_tensor_v2", Global::rebuild_tensor},
    {"torch._utils", "_rebuild_parameter", Global::rebuild_parameter},
    {"torch", "DoubleStorage", Global::storage_type, at::kDouble},
    {"torch", "FloatStorage", Global::storage_type, at::kFloat},
    {"torch", "HalfStorage", Global::storage_type, at::kHalf},
    {"torch", "BFloat16Storage", Global::storage_type, at::kBFloat16},
    {"torch", "LongStorage", Global::storage_type, at::kLong},
    {"torch", "IntStorage", Global::storage_type, at::kInt},
    {"torch", "ShortStorage", Global::storage_type, at::kShort},
    {"torch", "CharStorage", Global::storage_type, at::kChar},
    {"torch", "ByteStorage", Global::storage_type, at::kByte},
    {"torch", "BoolStorage", Global::storage_type, at::kBool},
};

struct Storage {
  std::string_view key;
  at::ScalarType dtype;
  std::int64_t numel;
};

class Interpreter {
 public:
  Interpreter(const Blob& pickle, const Source& source) : text_(pickle.text()), source_(source) {
    source_.check(text_.size() <= kMaxPickle, "has {} bytes, more than the {} of any state dict",
                  text_.size(), kMaxPickle);
  }

  std::vector<PickledTensor> run() {
    step();
    check(code_ == Opcode::proto, "expected PROTO first");
    while (code_ != Opcode::stop) step();
    check(stack_.size() == 1, "expected one object at the end, got {}", stack_.size());
    check(position_ == text_.size(), "expected the end, {} bytes follow", text_.size() - position_);
    return state_dict(pop(Kind::dict));
  }

 private:
  template <class... Args>
  void check(bool holds, fmt::format_string<Args...> format, Args&&... args) const {
    if (holds) [[likely]]
      return;
    source_.refuse(fmt::format("opcode {} (0x{:02x}) at byte {}: {}",
                               opcode_name(static_cast<std::uint8_t>(code_)),
                               static_cast<unsigned>(code_), opcode_position_,
                               fmt::format(format, std::forward<Args>(args)...)));
  }

  std::string_view take(std::uint64_t count) {
    check(count <= text_.size() - position_, "announces {} bytes, {} are left", count,
          text_.size() - position_);
    const auto taken = text_.substr(position_, count);
    position_ += count;
    return taken;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view line() {
    const auto end = text_.find('\n', position_);
    check(end != std::string_view::npos, "has no end of line");
    const auto taken = take(end - position_);
    ++position_;
    return taken;
  }

  void push(Kind kind, std::int64_t value, std::string_view text = {}) {
    check(stack_.size() < kMaxStack, "more than {} objects on the stack", kMaxStack);
    stack_.push_back({kind, value, text});
  }
  Value pop(Kind kind) {
    check(!stack_.empty() && stack_.back().kind == kind, "expected {}, got {}", kind_name(kind),
          stack_.empty() ? "nothing" : kind_name(stack_.back().kind));
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Value pop_any() {
    check(!stack_.empty() && stack_.back().kind != Kind::mark, "the stack is empty");
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  std::vector<Value> pop_to_mark() {
    const auto mark = std::find_if(stack_.rbegin(), stack_.rend(),
                                   [](const Value& v) { return v.kind == Kind::mark; });
    check(mark != stack_.rend(), "no mark on the stack");
    std::vector<Value> values(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return values;
  }

  void push_tuple(std::vector<Value> values) {
    tuples_.push_back(std::move(values));
    push(Kind::tuple, static_cast<std::int64_t>(tuples_.size()) - 1);
  }
  void push_tuple(std::size_t count) {
    std::vector<Value> values(count);
    for (auto i = count; i > 0; --i) values[i - 1] = pop_any();
    push_tuple(std::move(values));
  }
  const std::vector<Value>& tuple(const Value& value) const {
    check(value.kind == Kind::tuple, "expected a tuple, got {}", kind_name(value.kind));
    return tuples_[static_cast<std::size_t>(value.number)];
  }
  std::int64_t integer(const Value& value) const {
    check(value.kind == Kind::integer, "expected an int, got {}", kind_name(value.kind));
    return value.number;
  }
  std::vector<std::int64_t> extents(const Value& value) const {
    const auto& values = tuple(value);
    check(values.size() <= kMaxRank, "a tensor of rank {}", values.size());
    std::vector<std::int64_t> numbers;
    for (const auto& v : values) {
      numbers.push_back(integer(v));
      check(numbers.back() >= 0, "a negative size or stride");
    }
    return numbers;
  }

  void memoize(std::uint64_t index) {
    check(!stack_.empty() && stack_.back().kind != Kind::mark, "nothing to remember");
    check(memo_.size() < kMaxMemo, "more than {} remembered objects", kMaxMemo);
    memo_[index] = stack_.back();
  }
  void recall(std::uint64_t index) {
    const auto found = memo_.find(index);
    check(found != memo_.end(), "nothing is remembered as {}", index);
    const Value& v = found->second;
    push(v.kind, v.number, v.text);
  }

  void push_global(std::string_view module, std::string_view name) {
    check(name != "_rebuild_meta_tensor_no_storage",
          "a tensor that was saved on the meta device, without values");
    const auto* found = std::find_if(std::begin(kGlobals), std::end(kGlobals), [&](const auto& g) {
      return g.module == module && g.name == name;
    });
    check(found != std::end(kGlobals),
          "names {}.{}, which is no part of a state dict of plain tensors and is not run",
          printable(module), printable(name));
    push(Kind::global, found - std::begin(kGlobals));
  }

  void push_dict() {
    dicts_.emplace_back();
    push(Kind::dict, static_cast<std::int64_t>(dicts_.size()) - 1);
  }
  auto& dict(const Value& value) {
    check(value.kind == Kind::dict, "expected a dict, got {}", kind_name(value.kind));
    return dicts_[static_cast<std::size_t>(value.number)];
  }
  void set_items(const std::vector<Value>& items) {
    check(items.size() % 2 == 0, "a key without its value");
    check(!stack_.empty(), "no dict to fill");
    auto& target = dict(stack_.back());
    for (std::size_t i = 0; i < items.size(); i += 2) target.emplace_back(items[i], items[i + 1]);
  }

  void push_persistent() {
    const auto& id = tuple(pop(Kind::tuple));
    check(id.size() == 5 && id[0].kind == Kind::string && id[0].text == "storage" &&
              id[1].kind == Kind::global && id[2].kind == Kind::string &&
              id[3].kind == Kind::string,
          "expected ('storage', type, key, location, size)");
    const auto& type = kGlobals[id[1].number];
    check(type.role == Global::storage_type, "torch.{} is not a storage", type.name);
    check(!id[2].text.empty() && id[2].text.size() <= 64 &&
              std::all_of(id[2].text.begin(), id[2].text.end(),
                          [](unsigned char c) { return std::isalnum(c) != 0; }),
          "an impossible storage key");
    check(integer(id[4]) >= 0, "a storage of {} elements", id[4].number);
    storages_.push_back({id[2].text, type.dtype, id[4].number});
    push(Kind::storage, static_cast<std::int64_t>(storages_.size()) - 1);
  }

  void reduce() {
    const auto& arguments = tuple(pop(Kind::tuple));
    const auto& callable = kGlobals[pop(Kind::global).number];
    switch (callable.role) {
      case Global::ordered_dict:
        check(arguments.empty(), "OrderedDict with arguments");
        return push_dict();
      case Global::rebuild_parameter:
        check(arguments.size() == 3 && arguments[0].kind == Kind::tensor,
              "_rebuild_parameter with other arguments than a tensor, a bool and a dict");
        return push(Kind::tensor, arguments[0].number);
      case Global::rebuild_tensor:
        return rebuild_tensor(arguments);
      case Global::storage_type:
        check(false, "{}.{} is called", callable.module, callable.name);
    }
  }

  void rebuild_tensor(const std::vector<Value>& arguments) {
    // storage, offset, sizes, strides, requires_grad, hooks and, since torch 1.12, metadata
    check((arguments.size() == 6 || arguments.size() == 7) && arguments[0].kind == Kind::storage,
          "_rebuild_tensor_v2 with arguments that it does not take");
    const Storage& storage = storages_[static_cast<std::size_t>(arguments[0].number)];
    PickledTensor tensor;
    tensor.storage = storage.key;
    tensor.dtype = storage.dtype;
    tensor.storage_numel = storage.numel;
    tensor.offset = integer(arguments[1]);
    tensor.sizes = extents(arguments[2]);
    tensor.strides = extents(arguments[3]);
    check_view(tensor);
    tensors_.push_back(std::move(tensor));
    push(Kind::tensor, static_cast<std::int64_t>(tensors_.size()) - 1);
  }

  void check_view(const PickledTensor& t) const {
    check(t.sizes.size() == t.strides.size(), "{} sizes, but {} strides", t.sizes.size(),
          t.strides.size());
    check(t.offset >= 0 && t.offset <= t.storage_numel, "an offset of {} in {} elements", t.offset,
          t.storage_numel);
    // extents taken as 1 where they are 0, so that no product of any of them can overflow later
    std::int64_t elements = 1, last = t.offset;
    bool empty = false, fits = true;
    for (std::size_t i = 0; i < t.sizes.size(); ++i) {
      const auto size = std::max<std::int64_t>(t.sizes[i], 1);
      std::int64_t reach = 0;
      empty = empty || t.sizes[i] == 0;
      fits = fits && !__builtin_mul_overflow(elements, size, &elements) &&
             !__builtin_mul_overflow(size - 1, t.strides[i], &reach) &&
             !__builtin_add_overflow(last, reach, &last);
    }
    check(fits && (empty || last < t.storage_numel),
          "a view of ({}) with strides ({}) from {} does not fit its {} elements",
          fmt::join(t.sizes, ", "), fmt::join(t.strides, ", "), t.offset, t.storage_numel);
  }

  void step() {
    check(position_ < text_.size(), "the pickle ends without STOP");
    opcode_position_ = position_;
    code_ = static_cast<Opcode>(text_[position_++]);
    switch (code_) {
      case Opcode::proto: {
        const auto version = number<std::uint8_t>();
        check(opcode_position_ == 0 && version >= 2 && version <= 5,
              "expected protocol 2 to 5, got {}", version);
        break;
      }
      case Opcode::frame: {
        const auto size = number<std::uint64_t>();
        check(size <= text_.size() - position_, "a frame of {} bytes, {} are left", size,
              text_.size() - position_);
        break;
      }
      case Opcode::stop:
        break;
      case Opcode::mark:
        push(Kind::mark, 0);
        break;
      case Opcode::none:
        push(Kind::none, 0);
        break;
      case Opcode::newtrue:
      case Opcode::newfalse:
        push(Kind::boolean, code_ == Opcode::newtrue);
        break;
      case Opcode::binint:
        push(Kind::integer, number<std::int32_t>());
        break;
      case Opcode::binint1:
        push(Kind::integer, number<std::uint8_t>());
        break;
      case Opcode::binint2:
        push(Kind::integer, number<std::uint16_t>());
        break;
      case Opcode::long1:
        push_long();
        break;
      case Opcode::binunicode:
        push(Kind::string, 0, take(number<std::uint32_t>()));
        break;
      case Opcode::short_binunicode:
        push(Kind::string, 0, take(number<std::uint8_t>()));
        break;
      case Opcode::binunicode8:
        push(Kind::string, 0, take(number<std::uint64_t>()));
        break;
      case Opcode::empty_tuple:
        push_tuple(std::size_t{0});
        break;
      case Opcode::tuple1:
        push_tuple(std::size_t{1});
        break;
      case Opcode::tuple2:
        push_tuple(std::size_t{2});
        break;
      case Opcode::tuple3:
        push_tuple(std::size_t{3});
        break;
      case Opcode::tuple:
        push_tuple(pop_to_mark());
        break;
      case Opcode::empty_dict:
        push_dict();
        break;
      case Opcode::setitem: {
        const Value value = pop_any(), key = pop_any();
        set_items({key, value});
        break;
      }
      case Opcode::setitems:
        set_items(pop_to_mark());
        break;
      case Opcode::binput:
        memoize(number<std::uint8_t>());
        break;
      case Opcode::long_binput:
        memoize(number<std::uint32_t>());
        break;
      case Opcode::memoize:
        memoize(memo_.size());
        break;
      case Opcode::binget:
        recall(number<std::uint8_t>());
        break;
      case Opcode::long_binget:
        recall(number<std::uint32_t>());
        break;
      case Opcode::global: {
        const auto module = line();
        push_global(module, line());
        break;
      }
      case Opcode::stack_global: {
        const Value name = pop(Kind::string), module = pop(Kind::string);
        push_global(module.text, name.text);
        break;
      }
      case Opcode::binpersid:
        push_persistent();
        break;
      case Opcode::reduce:
        reduce();
        break;
      case Opcode::build:  // an OrderedDict's attributes: torch keeps its _metadata there
        dict(pop(Kind::dict));
        check(!stack_.empty() && stack_.back().kind == Kind::dict, "expected a dict to add to");
        break;
      default:
        check(false, "is no part of a state dict");
    }
  }

  void push_long() {
    const auto bytes = take(number<std::uint8_t>());
    check(bytes.size() <= 8, "an integer of {} bytes", bytes.size());
    std::int64_t value = !bytes.empty() && (bytes.back() & 0x80) != 0 ? -1 : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    push(Kind::integer, value);
  }

  std::vector<PickledTensor> state_dict(const Value& root) {
    std::vector<PickledTensor> result;
    std::set<std::string_view> names;
    for (const auto& [key, value] : dict(root)) {
      check(key.kind == Kind::string, "a state dict with a key that is a {}", kind_name(key.kind));
      check(!key.text.empty() && key.text.size() <= kMaxName &&
                std::all_of(key.text.begin(), key.text.end(),
                            [](char c) { return c > 0x20 && c < 0x7f; }),
            "a state dict with the impossible key \"{}\"", printable(key.text));
      check(value.kind == Kind::tensor, "{} is a {}, not a tensor", key.text,
            kind_name(value.kind));
      check(names.insert(key.text).second, "the key {} occurs twice", key.text);
      result.push_back(tensors_[static_cast<std::size_t>(value.number)]);
      result.back().name = key.text;
    }
    return result;
  }

  std::string_view text_;
  const Source& source_;
  std::uint64_t position_ = 0, opcode_position_ = 0;
  Opcode code_ = Opcode::proto;
  std::vector<Value> stack_;
  std::unordered_map<std::uint64_t, Value> memo_;
  std::deque<std::vector<Value>> tuples_;
  std::deque<std::vector<std::pair<Value, Value>>> dicts_;
  std::deque<Storage> storages_;
  std::deque<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> read_state_dict_pickle(const Blob& pickle, const Source& source) {
  return Interpreter(pickle, source).run();
}

}  // namespace halcyon::checkpoint
