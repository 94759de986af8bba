// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/config.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/suggest.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {
using config::Node;

enum class Loss { huber, mse };
const config::Names<Loss> kLosses{{"huber", Loss::huber}, {"mse", Loss::mse}};

Node parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return config::parse(text, "run.yaml", "/data", overrides);
}

// The message of the configuration error that f throws.
template <class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::configuration);
    return e.what();
  }
  return "no error";
}

TEST(Config, ReadsEveryType) {
  const Node run = parse(R"(
steps: 1e5
rate: 3.0e-4
name: 2024-01-01
file: obs/a.nc
absolute: /tmp/x
on: true
levels: [850, 500]
one: 5
nested: {text: "5", big: -9007199254740993}
start: 2024-01-01T06:00Z
window: PT3H
loss: mse
)");
  EXPECT_EQ(run.required<int64_t>("steps"), 100000);
  EXPECT_EQ(run.required<int>("steps"), 100000);
  EXPECT_EQ(run.required<double>("rate"), 3e-4);
  EXPECT_EQ(run.required<float>("rate"), 3e-4f);
  EXPECT_EQ(run.required<std::string>("name"), "2024-01-01");
  EXPECT_EQ(run.required<std::filesystem::path>("file"), "/data/obs/a.nc");
  EXPECT_EQ(run.required<std::filesystem::path>("absolute"), "/tmp/x");
  EXPECT_TRUE(run.required<bool>("on"));
  EXPECT_EQ(run.required<std::vector<int>>("levels"), (std::vector<int>{850, 500}));
  EXPECT_EQ(run.required<std::vector<int>>("one"), std::vector<int>{5});
  EXPECT_EQ(run.section("nested").required<std::string>("text"), "5");
  EXPECT_EQ(run.section("nested").required<int64_t>("big"), -9007199254740993);
  EXPECT_EQ(run.time("start"), 1704088800);
  EXPECT_EQ(run.duration("window"), 10800);
  EXPECT_EQ(run.duration("other_window", 7200), 7200);
  EXPECT_EQ(run.choice("loss", kLosses), Loss::mse);
  EXPECT_EQ(run.choice("other_loss", kLosses, Loss::huber), Loss::huber);
  EXPECT_EQ(run.optional<int>("absent", 7), 7);
  EXPECT_FALSE(run.maybe<int>("nothing").has_value());
  run.finish();
}

TEST(Config, AWrongValueNamesItsPlaceAndWhatWasExpected) {
  const Node run = parse(
      "training:\n  steps: many\n  rate: -1\n  fraction: 1.5\n  quoted: \"5\"\n  half: 2.5\n"
      "  list: [1, x]\n  flag: yes\n  loss: hubr\n  nan: .nan\n  empty:\n  section: {a: 1}\n"
      "  big: 3000000000\n  start: 2023-02-29\n");
  const Node t = run.section("training");
  const auto expect = [&](auto&& f, const std::string& wanted) { EXPECT_EQ(message(f), wanted); };
  expect([&] { t.required<int>("steps"); },
         "run.yaml:2: [training.steps] expected a whole number, got 'many'");
  expect([&] { t.required<double>("rate", config::positive()); },
         "run.yaml:3: [training.rate] expected a number above 0, got '-1'");
  expect([&] { t.required<double>("fraction", config::between(0, 1)); },
         "run.yaml:4: [training.fraction] expected a number from 0 to 1, got '1.5'");
  expect([&] { t.required<int>("quoted"); },
         "run.yaml:5: [training.quoted] expected a whole number, got the text \"5\"");
  expect([&] { t.required<int64_t>("half"); },
         "run.yaml:6: [training.half] expected a whole number, got '2.5'");
  expect([&] { t.required<std::vector<int>>("list"); },
         "run.yaml:7: [training.list] expected a whole number, got 'x'");
  expect([&] { t.required<bool>("flag"); },
         "run.yaml:8: [training.flag] expected true or false, got 'yes'");
  expect([&] { t.choice("loss", kLosses); },
         "run.yaml:9: [training.loss] expected one of huber, mse, got 'hubr', did you mean "
         "'huber'?");
  expect([&] { t.required<double>("nan"); },
         "run.yaml:10: [training.nan] expected a number, got '.nan'");
  expect([&] { t.required<double>("empty"); }, "run.yaml:11: [training] key 'empty' has no value");
  expect([&] { t.required<std::string>("section"); },
         "run.yaml:12: [training.section] expected a text, got a section");
  expect([&] { t.required<int>("big"); },
         "run.yaml:13: [training.big] expected a whole number of 32 bits, got '3000000000'");
  expect([&] { t.time("start"); },
         "run.yaml:14: [training.start] [time] expected a time as 2024-02-29T06:00:00Z, got "
         "'2023-02-29'");
  expect([&] { t.section("steps"); },
         "run.yaml:2: [training.steps] expected a section, got 'many'");
  expect([&] { (void)t.sections("steps"); },
         "run.yaml:2: [training.steps] expected a list, got 'many'");
  expect([&] { t.check(false, "rate", "expected {}", 4); },
         "run.yaml:3: [training.rate] expected 4");
}

TEST(Config, MissingAndUnknownKeysNameTheNearest) {
  const Node run = parse("training:\n  stpes: 5\n  rate: 1\nzzz: 1\nobs:\n- {flie: x}\n");
  const Node t = run.section("training");
  t.required<int>("rate");
  EXPECT_EQ(message([&] { t.required<int>("steps"); }),
            "run.yaml:2: [training] missing key 'steps' (found 'stpes' on line 2)");
  for (const auto& item : run.sections("obs")) (void)item.maybe<std::string>("file");
  EXPECT_EQ(message([&] { run.finish(); }),
            "run.yaml:2: [training] unknown key 'stpes', did you mean 'steps'?\n"
            "run.yaml:4: unknown key 'zzz', expected one of: training, obs\n"
            "run.yaml:6: [obs[0]] unknown key 'flie', did you mean 'file'?");
}

TEST(Config, DuplicateKeysAndBrokenYamlAreErrors) {
  EXPECT_EQ(message([] { parse("a: 1\nb:\n  c: 1\n  c: 2\n"); }),
            "run.yaml:4: duplicate key 'c', first on line 3");
  EXPECT_NE(message([] { parse("a: [1, 2\nb: 3"); }).find("run.yaml:"), std::string::npos);
  EXPECT_EQ(message([] { parse("- 1\n- 2\n"); }), "run.yaml:1: expected keys and values");
  EXPECT_EQ(message([] { parse("a: 1\n---\nb: 2\n"); }),
            "run.yaml:1: expected one YAML document, got several");
  EXPECT_EQ(
      message([] { parse("a: !!python/object x\n"); }).find("run.yaml:1: tags are not supported"),
      0);
  EXPECT_EQ(message([] { parse("{a: 1, [b]: 2}"); }), "run.yaml:1: expected a text as key");
  EXPECT_TRUE(parse("").keys().empty());
  EXPECT_TRUE(parse("# only a comment\n").keys().empty());
}

TEST(Config, AliasesWorkAndBombsDoNot) {
  const Node run = parse("base: &b {rate: 1}\nother: *b\nx: &x 5\ny: *x\n");
  EXPECT_EQ(run.section("other").required<int>("rate"), 1);
  EXPECT_EQ(run.required<int>("y"), 5);

  std::string laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n";
  for (int i = 1; i < 9; ++i) {
    laughs += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 9; ++j) laughs += fmt::format("{}*a{}", j == 0 ? "" : ", ", i - 1);
    laughs += "]\n";
  }
  EXPECT_NE(message([&] { parse(laughs); }).find("expected at most 100000 values"),
            std::string::npos);
  std::string ladder = "a0: &a0 {k: v}\n";
  for (int i = 1; i < 60; ++i) ladder += fmt::format("a{}: &a{} {{k: *a{}}}\n", i, i, i - 1);
  EXPECT_NE(message([&] { parse(ladder); }).find("expected at most 32 levels"), std::string::npos);
  EXPECT_NE(message([] { parse("a: &a {b: *a}"); }).find("alias inside its own anchor"),
            std::string::npos);
  EXPECT_NE(message([] { parse("a: *nobody"); }).find("not YAML"), std::string::npos);
}

TEST(Config, HostileTextsEndSoonInAnError) {
  const auto begun = std::chrono::steady_clock::now();
  const std::size_t big = 1 << 20;
  EXPECT_NE(message([&] { parse(std::string(big + 1, 'a')); }).find("bytes"), std::string::npos);
  for (const std::string unit : {"[", "{", "- ", "? ", "a: ", "{a: ", "&a ", "!", "\"", "*a "}) {
    std::string text;
    while (text.size() + unit.size() <= big) text += unit;
    EXPECT_THROW(parse(text), Error) << unit;
  }
  std::string list = "a: [";
  while (list.size() + 4 < big) list += "1,";
  EXPECT_THROW(parse(list + "1]"), Error);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20));
}

TEST(Config, OverridesReachSectionsListsAndNewKeys) {
  const Node run = parse("training: {steps: 5}\nobs:\n- {file: a.nc}\nlevels: [1, 2]\n",
                         {"training.steps=7", "training.optimizer.rate=1e-3", "obs.0.file=b.nc",
                          "levels=[3, 4, 5]", "name=", "levels.1=9"});
  EXPECT_EQ(run.section("training").required<int>("steps"), 7);
  EXPECT_EQ(run.section("training").section("optimizer").required<double>("rate"), 1e-3);
  EXPECT_EQ(run.sections("obs")[0].required<std::filesystem::path>("file"), "b.nc");
  EXPECT_EQ(run.required<std::vector<int>>("levels"), (std::vector<int>{3, 9, 5}));
  EXPECT_FALSE(run.has("name"));
  run.finish();

  const Node wrong = parse("a: 1", {"b.c=x"});
  EXPECT_EQ(message([&] { wrong.section("b").required<int>("c"); }),
            "--set b.c=x: [b.c] expected a whole number, got 'x'");
  EXPECT_EQ(message([] { parse("a: 1", {"novalue"}); }), "--set novalue: expected key=value");
  EXPECT_EQ(message([] { parse("a: 1", {"a.b=1"}); }), "--set a.b=1: 'b' is below a plain value");
  EXPECT_EQ(message([] { parse("a: [1]", {"a.1=1"}); }),
            "--set a.1=1: expected an item from 0 to 0, got '1'");
  EXPECT_EQ(message([] { parse("a: 1", {"a..b=1"}); }),
            "--set a..b=1: expected a name between the dots");
}

TEST(Config, TheResolvedConfigurationHoldsDefaultsAndReadsBack) {
  const Node run = parse("training: {steps: 5, name: \"yes: no\"}\nobs: [{file: a}, {file: b}]\n");
  const Node t = run.section("training");
  t.required<int>("steps");
  t.required<std::string>("name");
  t.optional<double>("rate", 0.1);
  t.optional<bool>("flag", false);
  t.maybe<int>("limit");
  t.optional<double>("cap", std::numeric_limits<double>::infinity());
  run.section_or_defaults("loss").choice("kind", kLosses, Loss::huber);
  for (const auto& item : run.sections("obs")) item.required<std::filesystem::path>("file");
  run.optional<std::vector<int>>("levels", {1, 2});
  run.finish();
  EXPECT_EQ(run.resolved().dump(),
            R"({"training":{"steps":5,"name":"yes: no","rate":0.1,"flag":false,"limit":null,)"
            R"("cap":"inf"},"loss":{"kind":"huber"},"obs":[{"file":"/data/a"},{"file":"/data/b"}],)"
            R"("levels":[1,2]})");
  const Node again = parse(run.resolved_yaml());
  EXPECT_EQ(again.section("training").required<std::string>("name"), "yes: no");
  EXPECT_EQ(again.section("training").required<double>("rate"), 0.1);
  EXPECT_EQ(again.sections("obs")[1].required<std::string>("file"), "/data/b");
  EXPECT_EQ(again.required<std::vector<int>>("levels"), (std::vector<int>{1, 2}));
}

TEST(Config, FilesAreFoundBesideTheYaml) {
  const test::TemporaryFolder folder;
  write_text(folder / "run.yaml", "obs: ['*.nc']\none: b.nc\nnone: '*.grib'\nlost: c.nc\n");
  write_text(folder / "b.nc", "b");
  write_text(folder / "a.nc", "a");
  const Node run = config::load(folder / "run.yaml");
  EXPECT_EQ(run.file(), folder / "run.yaml");
  EXPECT_EQ(run.input_file("one"), folder / "b.nc");
  EXPECT_EQ(run.input_files("obs"),
            (std::vector<std::filesystem::path>{folder / "a.nc", folder / "b.nc"}));
  EXPECT_NE(message([&] { run.input_files("none"); }).find("run.yaml:3: [none] no file matches"),
            std::string::npos);
  EXPECT_NE(message([&] { run.input_file("lost"); }).find("run.yaml:4: [lost] no readable file"),
            std::string::npos);
  EXPECT_NE(message([&] { config::load(folder / "absent.yaml"); }).find("absent.yaml"),
            std::string::npos);
}

TEST(Config, ANameThatExistsIsNoPattern) {
  const test::TemporaryFolder folder;
  std::filesystem::create_directories(folder / "run[1]");
  write_text(folder / "run[1]/run.yaml", "obs: ['t[2014].nc', '*.nc', 't[2014].nc']\n");
  write_text(folder / "run[1]/t[2014].nc", "a");
  write_text(folder / "run[1]/u.nc", "b");
  // each file once
  EXPECT_EQ(
      config::load(folder / "run[1]/run.yaml").input_files("obs"),
      (std::vector<std::filesystem::path>{folder / "run[1]/t[2014].nc", folder / "run[1]/u.nc"}));
}

TEST(Config, TextIsUtf8) {
  EXPECT_EQ(parse("\xEF\xBB\xBFname: Qu\u00e9bec\n").required<std::string>("name"), "Qu\u00e9bec");
  EXPECT_NE(message([] {
              parse("a: 1\nname: Qu\xE9\n");
            }).find("run.yaml:2: character 9: expected UTF-8 text, got the byte 0xE9"),
            std::string::npos);
  EXPECT_NE(message([] { parse(std::string("a\0:\0", 4)); }).find("got UTF-16LE"),
            std::string::npos);
  // names of files may be anything; the record of the run shows them
  const Node run = parse("file: a.nc\n", {"file=/tmp/Qu\xE9.nc"});
  EXPECT_EQ(run.required<std::filesystem::path>("file"), "/tmp/Qu\xE9.nc");
  EXPECT_EQ(run.resolved()["file"], "/tmp/Qu\\xE9.nc");
}

TEST(Config, TimeRangesAreSections) {
  const Node run = parse(
      "times: {start: 20240101, end: 2024-01-02, step: 6h}\n"
      "back: {start: 2024-01-02, end: 2024-01-01, step: 6h}\n");
  EXPECT_EQ(run.time_range("times").size(), 5);
  EXPECT_NE(message([&] { run.time_range("back"); }).find("run.yaml:2: [back.end]"),
            std::string::npos);
}

TEST(Suggest, FindsTheNearestOrNothing) {
  const std::vector<std::string> names{"learning_rate", "steps", "seed"};
  EXPECT_EQ(nearest("lerning_rate", names), "learning_rate");
  EXPECT_EQ(nearest("Learning-Rate", names), "learning_rate");
  EXPECT_EQ(nearest("sede", names), "seed");
  EXPECT_EQ(nearest("banana", names), "");
  EXPECT_EQ(did_you_mean("banana", {}), "");
}

}  // namespace
}  // namespace halcyon
