// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/patterns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "halcyon/base/files.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

class Patterns : public testing::Test {
 protected:
  Patterns() {
    for (const char* name :
         {"a1.csv", "a2.csv", "a[1].csv", "what?.csv", "a*b.csv", "axb.csv", "with space.csv",
          ".hidden.csv", "run[1]/t.csv", "run[1]/u.csv", "run1/t.csv", "run2/t.csv", "{x}/t.csv",
          "back\\slash.csv", "both*/t.csv", "bothered/s.csv"}) {
      fs::create_directories((folder_ / name).parent_path());
      write_text(folder_ / name, name);
    }
  }
  // What the pattern stands for, in the folder.
  Names found(const std::string& pattern) const {
    Names names;
    for (const auto& path : matching_files(folder_ / pattern))
      names.push_back(path.lexically_relative(folder_.path()).string());
    return names;
  }
  test::TemporaryFolder folder_;
};

TEST_F(Patterns, ANameThatExistsIsThatFile) {
  for (const char* name : {"a[1].csv", "what?.csv", "a*b.csv", "with space.csv", "run[1]/t.csv",
                           "{x}/t.csv", "back\\slash.csv", "run[1]"})
    EXPECT_EQ(found(name), Names{name});
}

TEST_F(Patterns, AnythingElseIsAPattern) {
  EXPECT_EQ(found("a?.csv"), (Names{"a1.csv", "a2.csv"}));
  EXPECT_EQ(found("a[2-9].csv"), Names{"a2.csv"});
  EXPECT_EQ(found("a\\[1\\].csv"), Names{"a[1].csv"});
  EXPECT_EQ(found("*idden.csv"), Names{});
  EXPECT_EQ(found("run?/t.csv"), (Names{"run1/t.csv", "run2/t.csv"}));
  EXPECT_EQ(found("r*/t.csv"), (Names{"run1/t.csv", "run2/t.csv", "run[1]/t.csv"}));
  EXPECT_EQ(found("none*.csv"), Names{});
  EXPECT_EQ(found("none.csv"), Names{});
  EXPECT_EQ(matching_files(""), std::vector<fs::path>{});
}

TEST_F(Patterns, FoldersOnTheWayAreNamesToo) {
  EXPECT_EQ(found("run[1]/*.csv"), (Names{"run[1]/t.csv", "run[1]/u.csv"}));
  EXPECT_EQ(found("run[12]/*.csv"), (Names{"run1/t.csv", "run2/t.csv"}));
  // the folder of that name has no such file: the pattern's folders may
  EXPECT_EQ(found("both*/s.csv"), Names{"bothered/s.csv"});
  EXPECT_EQ(found("both*/t.csv"), Names{"both*/t.csv"});
}

TEST_F(Patterns, RelativeNamesStayRelative) {
  const auto before = fs::current_path();
  fs::current_path(folder_.path());
  const auto names = matching_files("run[1]/t*"), dotted = matching_files("./a?.csv");
  fs::current_path(before);
  EXPECT_EQ(names, std::vector<fs::path>{"run[1]/t.csv"});
  EXPECT_EQ(dotted, (std::vector<fs::path>{"./a1.csv", "./a2.csv"}));
}

}  // namespace
}  // namespace halcyon
