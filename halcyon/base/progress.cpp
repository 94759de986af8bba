// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/log.h"

namespace halcyon {
namespace {

constexpr int kBarWidth = 24;
constexpr double kRedraw = 0.1, kLineInterval = 10;  // seconds

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string clock_text(double seconds) {
  const auto s = std::llround(std::min(seconds, 1e9));
  if (s >= 3600) return fmt::format("{}:{:02d}:{:02d}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02d}", s / 60, s % 60);
}

}  // namespace

std::string progress_line(std::string_view label, int64_t done, int64_t total, int64_t since,
                          double seconds, int width, std::string_view note) {
  const double part = total > 0 ? std::clamp(static_cast<double>(done) / total, 0.0, 1.0) : 1;
  std::string line = fmt::format("{} {:3d}%", label, static_cast<int>(part * 100));
  if (width > 0) {
    const int filled = static_cast<int>(part * width);
    line += fmt::format(" [{:#<{}}{:-<{}}]", "", filled, "", width - filled);
  }
  line += fmt::format(" {}/{}", done, total);
  if (since > 0 && seconds > 0) {
    const double rate = static_cast<double>(since) / seconds;
    line += rate >= 1 ? fmt::format(" {:.1f}/s", rate) : fmt::format(" {:.1f}s each", 1 / rate);
    line += done < total ? " ETA " + clock_text(static_cast<double>(total - done) / rate)
                         : " in " + clock_text(seconds);
  }
  if (!note.empty()) line += fmt::format(" {}", note);
  return line;
}

Progress::Progress(std::string label, int64_t total, int64_t start)
    : Progress(std::move(label), total, start, std::cerr, ::isatty(STDERR_FILENO) == 1,
               steady_seconds) {
  if (!terminal_) out_ = nullptr;
}

Progress::Progress(std::string label, int64_t total, int64_t start, std::ostream& out,
                   bool terminal, std::function<double()> clock)
    : label_(std::move(label)),
      total_(total),
      start_(start),
      done_(start),
      out_(&out),
      terminal_(terminal),
      clock_(std::move(clock)),
      begun_(clock_()),
      shown_(begun_),
      shown_done_(start) {
  HALCYON_CHECK(total >= 0 && start >= 0, "Progress",
                "expected total and start of at least zero, got {} and {}", total, start);
}

Progress::~Progress() {
  clear();
}

void Progress::update(int64_t done, std::string_view note) {
  done_ = done;
  const double now = clock_();
  const bool due = terminal_
                       ? now - shown_ >= kRedraw || !on_screen_
                       : now - shown_ >= kLineInterval && (done - shown_done_) * 100 >= total_;
  if (due) show(note, false);
}

void Progress::clear() {
  if (!on_screen_) return;
  *out_ << "\r\x1b[K" << std::flush;
  on_screen_ = false;
}

void Progress::finish(std::string_view note) {
  if (std::exchange(finished_, true)) return;
  show(note, true);
}

void Progress::show(std::string_view note, bool last) {
  shown_ = clock_();
  shown_done_ = done_;
  const std::string line = progress_line(label_, done_, total_, done_ - start_, shown_ - begun_,
                                         terminal_ ? kBarWidth : 0, note);
  if (terminal_) {
    *out_ << "\r\x1b[K" << line << (last ? "\n" : "") << std::flush;
    on_screen_ = !last;
  } else if (out_ != nullptr) {
    *out_ << line << '\n';
  } else {
    log::info("{}", line);
  }
}

}  // namespace halcyon
