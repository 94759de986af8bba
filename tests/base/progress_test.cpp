// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

TEST(Progress, ALineHasRateAndTimeLeft) {
  EXPECT_EQ(progress_line("train", 420, 1000, 400, 50, 10, "loss 0.12"),
            "train  42% [####------] 420/1000 8.0/s ETA 1:13 loss 0.12");
  EXPECT_EQ(progress_line("train", 2, 10, 2, 1000, 0), "train  20% 2/10 500.0s each ETA 1:06:40");
  EXPECT_EQ(progress_line("read", 10, 10, 10, 65, 0), "read 100% 10/10 6.5s each in 1:05");
  EXPECT_EQ(progress_line("read", 0, 10, 0, 0, 4), "read   0% [----] 0/10");
  EXPECT_EQ(progress_line("none", 0, 0, 0, 0, 0), "none 100% 0/0");
}

TEST(Progress, PlainLinesAreFew) {
  std::ostringstream out;
  double now = 0;
  Progress progress("work", 100000, 0, out, false, [&] { return now; });
  for (int i = 1; i <= 100000; ++i) {
    now = i * 0.1;  // 10,000 s in all: 1 % takes 100 s
    progress.update(i);
  }
  progress.finish();
  progress.finish();
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 101);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(Progress, ShortWorkPrintsOnlyItsEnd) {
  std::ostringstream out;
  double now = 0;
  Progress progress("work", 100, 0, out, false, [&] { return now += 0.01; });
  for (int i = 1; i <= 100; ++i) progress.advance();
  progress.finish("done");
  EXPECT_EQ(out.str().find('\n'), out.str().size() - 1);
  EXPECT_NE(out.str().find("100/100"), std::string::npos);
}

TEST(Progress, ABarIsRedrawnInPlaceAndClearedWhenAbandoned) {
  std::ostringstream out;
  double now = 0;
  {
    Progress progress("work", 100, 0, out, true, [&] { return now; });
    progress.update(1);
    progress.update(2);  // too soon
    now = 1;
    progress.update(3);
  }
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 3);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 0);
  EXPECT_EQ(text.find(" 2/100"), std::string::npos);
  EXPECT_TRUE(text.ends_with("\r\x1b[K"));
}

TEST(Progress, AResumedRunsRateCountsOnlyItsOwnWork) {
  std::ostringstream out;
  double now = 0;
  Progress progress("train", 1000, 900, out, false, [&] { return now; });
  now = 20;
  progress.update(920);
  EXPECT_NE(out.str().find("920/1000 1.0/s ETA 1:20"), std::string::npos) << out.str();
  EXPECT_THROW(Progress("x", -1), Error);
}

}  // namespace
}  // namespace halcyon
