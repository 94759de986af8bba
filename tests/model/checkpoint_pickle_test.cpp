// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/checkpoint_files.h"

namespace halcyon {
namespace {

using checkpoint::PickledTensor;
using test::pickled::global;
using test::pickled::integer;
using test::pickled::state_dict;
using test::pickled::tensor;
using test::pickled::text;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using namespace std::string_literals;

std::vector<PickledTensor> read(const std::string& pickle) {
  return checkpoint::read_state_dict_pickle(test::blob_of(pickle), {"load", "file"});
}
std::string refused(const std::string& pickle) {
  return test::refusal([&] { read(pickle); });
}

TEST(Pickle, ReadsTensorsAndTheirViews) {
  const auto tensors =
      read(state_dict({{"a.weight", tensor("0", 12, {3, 4}, {4, 1})},
                       {"b", tensor("7", 12, {4, 2}, {1, 4}, 2, "BFloat16Storage")},
                       {"scalar", tensor("1", 1, {}, {}, 0, "LongStorage")},
                       {"empty", tensor("2", 0, {0, 5}, {5, 1})}}));
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "a.weight");
  EXPECT_EQ(tensors[0].storage, "0");
  EXPECT_EQ(tensors[0].dtype, at::kFloat);
  EXPECT_THAT(tensors[0].sizes, ElementsAre(3, 4));
  EXPECT_THAT(tensors[0].strides, ElementsAre(4, 1));
  EXPECT_EQ(tensors[1].dtype, at::kBFloat16);
  EXPECT_EQ(tensors[1].offset, 2);
  EXPECT_EQ(tensors[1].storage_numel, 12);
  EXPECT_EQ(tensors[2].dtype, at::kLong);
  EXPECT_THAT(tensors[2].sizes, IsEmpty());
  EXPECT_THAT(tensors[3].sizes, ElementsAre(0, 5));
}

TEST(Pickle, ReadsParametersMemoMetadataAndNewerProtocols) {
  // protocol 4: FRAME, SHORT_BINUNICODE, STACK_GLOBAL, MEMOIZE; the second tensor recalls the
  // first's function (1) and storage type (2); OrderedDict.__setstate__ by BUILD
  const auto shorter = [](const std::string& s) {
    return "\x8c"s + static_cast<char>(s.size()) + s;
  };
  const auto stack_global = [&](const std::string& module, const std::string& name) {
    return shorter(module) + shorter(name) + "\x93\x94";
  };
  const std::string dict = stack_global("collections", "OrderedDict") + ")R";
  const auto storage = [&](const std::string& type, const std::string& key) {
    return "(" + shorter("storage") + type + shorter(key) + shorter("cuda:0") + "K\x06tQ";
  };
  const std::string rest = "K\x00K\x02K\x03\x86K\x03K\x01\x86\x89h\x00)RtR"s;
  const std::string first = stack_global("torch._utils", "_rebuild_tensor_v2") + "(" +
                            storage(stack_global("torch", "HalfStorage"), "0") + rest;
  const std::string second = "h\x01("s + storage("h\x02", "1") + rest;
  const std::string parameter =
      global("torch._utils", "_rebuild_parameter") + "(" + second + "\x88h\x00)RtR"s;
  const std::string body = dict + "(" + shorter("x") + first + shorter("y") + parameter + "u}" +
                           shorter("_metadata") + "h\x00)R"s + shorter("") + "}" +
                           shorter("version") + "K\x01sssb.";
  const std::uint64_t size = body.size();
  const auto tensors =
      read("\x80\x04\x95"s + std::string(reinterpret_cast<const char*>(&size), 8) + body);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[1].name, "y");
  EXPECT_EQ(tensors[1].storage, "1");
  EXPECT_EQ(tensors[1].dtype, at::kHalf);
  EXPECT_THAT(tensors[1].sizes, ElementsAre(2, 3));
}

TEST(Pickle, RunsNothing) {
  const auto call = [](const std::string& function, const std::string& argument) {
    return "\x80\x02" + function + "(" + text(argument) + "tR.";
  };
  EXPECT_THAT(
      refused(call("cos\nsystem\n", "touch /tmp/x")),
      AllOf(HasSubstr("os.system"), HasSubstr("GLOBAL"), HasSubstr("byte 2"), HasSubstr("file")));
  EXPECT_THAT(refused(call(global("builtins", "eval"), "1")), HasSubstr("builtins.eval"));
  EXPECT_THAT(refused(call(global("torch", "load"), "1")), HasSubstr("torch.load"));
  EXPECT_THAT(refused(call(global("torch._utils", "_rebuild_meta_tensor_no_storage"), "1")),
              HasSubstr("saved on the meta device, without values"));
  EXPECT_THAT(refused("\x80\x04\x8c\x02os\x8c\x06system\x93."s),
              AllOf(HasSubstr("STACK_GLOBAL"), HasSubstr("os.system"), HasSubstr("byte 14")));
  EXPECT_THAT(refused("\x80\x02(S'a'\nios\nsystem\n."s),
              HasSubstr("opcode STRING (0x53) at byte 3"));
  for (const char code : {'i', 'o', '\x81', '\x92', '\x82', 'P', ']', 'd', '2', '\x96'})
    EXPECT_THAT(refused("\x80\x02"s + code + "."), HasSubstr("is no part of a state dict"));
  EXPECT_THAT(refused("\x80\x02"s + global("torch", "FloatStorage") + ")R."),
              HasSubstr("torch.FloatStorage is called"));
  EXPECT_THAT(refused("\x80\x02"s + "cos\x1b[31m\nsystem\n."), HasSubstr("os?[31m.system"));
}

TEST(Pickle, ChecksEveryView) {
  const auto view = [](std::int64_t numel, std::vector<std::int64_t> sizes,
                       std::vector<std::int64_t> strides, std::int64_t offset = 0) {
    return refused(state_dict({{"a", tensor("0", numel, sizes, strides, offset)}}));
  };
  EXPECT_THAT(view(12, {3, 4}, {4, 1}), IsEmpty());
  EXPECT_THAT(view(12, {3, 4}, {4, 1}, 1), HasSubstr("does not fit its 12 elements"));
  EXPECT_THAT(view(12, {3, 4}, {5, 1}), HasSubstr("does not fit"));
  EXPECT_THAT(view(1, {13, 2}, {0, 0}), IsEmpty());  // expanded
  EXPECT_THAT(view(12, {3, 4}, {4, 3}), HasSubstr("does not fit"));
  EXPECT_THAT(view(0, {1}, {0}), HasSubstr("does not fit"));
  EXPECT_THAT(view(12, {INT64_MAX, INT64_MAX}, {INT64_MAX, 1}), HasSubstr("does not fit"));
  EXPECT_THAT(view(12, {0, INT64_MAX, INT64_MAX}, {0, 0, 0}), HasSubstr("does not fit"));
  EXPECT_THAT(view(12, {2}, {INT64_MAX}, 2), HasSubstr("does not fit"));
  EXPECT_THAT(view(12, {-1}, {1}), HasSubstr("negative"));
  EXPECT_THAT(view(12, {1}, {-1}), HasSubstr("negative"));
  EXPECT_THAT(view(12, {1}, {1}, -1), HasSubstr("an offset of -1"));
  EXPECT_THAT(view(12, {1}, {1}, INT64_MAX), HasSubstr("an offset of"));
  EXPECT_THAT(view(-12, {1}, {1}), HasSubstr("a storage of -12"));
  EXPECT_THAT(view(12, {3, 4}, {1}), HasSubstr("2 sizes, but 1 strides"));
  EXPECT_THAT(view(12, std::vector<std::int64_t>(33, 1), std::vector<std::int64_t>(33, 1)),
              HasSubstr("rank 33"));
}

TEST(Pickle, RefusesWhatIsNoStateDict) {
  const std::string a = tensor("0", 1, {1}, {1});
  const std::pair<std::string, const char*> cases[] = {
      {"", "ends without STOP"},
      {"\x80\x02", "ends without STOP"},
      {"\x80", "announces 1 bytes, 0 are left"},
      {"\x80\x01.", "expected protocol 2 to 5, got 1"},
      {"\x80\x06.", "expected protocol 2 to 5, got 6"},
      {"}.", "expected PROTO first"},
      {"\x80\x02}\x80\x02.", "expected protocol"},
      {"\x80\x02}.x", "1 bytes follow"},
      {"\x80\x02}}.", "expected one object at the end, got 2"},
      {"\x80\x02N.", "expected dict, got None"},
      {"\x80\x02" + a + ".", "expected dict, got tensor"},
      {"\x80\x02X\xff\xff\xff\xff" + "abc"s, "announces 4294967295 bytes"},
      {"\x80\x04\x8d"s + std::string(8, '\xff') + "abc", "announces 18446744073709551615 bytes"},
      {"\x80\x04\x95"s + std::string(8, '\x7f') + "}.", "a frame of"},
      {"\x80\x02}(" + text("a") + "u.", "a key without its value"},
      {"\x80\x02u.", "no mark"},
      {"\x80\x02(u.", "no dict to fill"},
      {"\x80\x02(s.", "the stack is empty"},
      {"\x80\x02h\x05.", "nothing is remembered as 5"},
      {"\x80\x02q\x05.", "nothing to remember"},
      {"\x80\x02)Q.", "expected ('storage'"},
      {"\x80\x02NQ.", "expected tuple, got None"},
      {"\x80\x02\x8a\x09" + "123456789."s, "an integer of 9 bytes"},
      {"\x80\x02"s + "cos", "has no end of line"},
      {state_dict({{"a", "N"}}), "a is a None, not a tensor"},
      {state_dict({{"a", a}, {"a", a}}), "the key a occurs twice"},
      {state_dict({{"", a}}), "impossible key"},
      {state_dict({{"a\nb", a}}), "impossible key \"a?b\""},
      {"\x80\x02}" + integer(3) + a + "s.", "a key that is a int"},
      {state_dict({{"a", tensor("../../etc/passwd", 1, {1}, {1})}}), "impossible storage key"},
      {state_dict({{"a", tensor("0", 1, {1}, {1}, 0, "ComplexFloatStorage")}}),
       "torch.ComplexFloatStorage"},
      {"\x80\x02}" + a + "b.", "expected dict, got tensor"},
      {"\x80\x02"s + std::string(300'000, 'N') + ".", "objects on the stack"},
      {std::string(9 << 20, 'N'), "more than the"},
  };
  for (const auto& [pickle, reason] : cases) EXPECT_THAT(refused(pickle), HasSubstr(reason));
}

TEST(Pickle, DeepAndCyclicValuesEnd) {
  const std::string self = "\x80\x02}q\x00"s + text("a") + "h\x00s."s;  // a dict within itself
  EXPECT_THAT(refused(self), HasSubstr("a is a dict, not a tensor"));
  EXPECT_THAT(refused("\x80\x02)"s + std::string(1 << 20, '\x85') + "."),
              HasSubstr("expected dict, got tuple"));
}

}  // namespace
}  // namespace halcyon
