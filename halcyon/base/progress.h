// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

namespace halcyon {

// "train  42% [########------------] 420/1000  8.1/s  ETA 1:12  loss 0.12": one line of progress.
// done of total, `since` of them made in `seconds`; width is the bar's, 0 leaves the bar out.
std::string progress_line(std::string_view label, int64_t done, int64_t total, int64_t since,
                          double seconds, int width, std::string_view note = {});

// Shows how far long work has come, on stderr: a bar with rate and time left on a terminal; plain
// log lines elsewhere, one at most every 10 s and every 1 % of the work, and the last one. Not for
// use by several threads at once.
class Progress {
 public:
  // start: what was already done (a resumed run); it does not count for the rate.
  Progress(std::string label, int64_t total, int64_t start = 0);
  // For tests: writes to out, asks clock (seconds) for the time.
  Progress(std::string label, int64_t total, int64_t start, std::ostream& out, bool terminal,
           std::function<double()> clock);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done, std::string_view note = {});
  void advance(int64_t by = 1) { update(done_ + by); }
  // Takes the bar away, so that other lines can be written; the next update draws it again.
  void clear();
  // The last line, once; the destructor only clears the bar.
  void finish(std::string_view note = {});

 private:
  void show(std::string_view note, bool last);

  std::string label_;
  int64_t total_, start_, done_;
  std::ostream* out_ = nullptr;  // none: the log
  bool terminal_;
  std::function<double()> clock_;
  double begun_, shown_;
  int64_t shown_done_;
  bool on_screen_ = false, finished_ = false;
};

}  // namespace halcyon
