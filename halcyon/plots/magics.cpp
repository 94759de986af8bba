// SPDX-License-Identifier: Apache-2.0
#include "halcyon/plots/magics.h"

#include <fmt/format.h>
#include <magics_api.h>

#include <cmath>
#include <cstdlib>
#include <exception>
#include <mutex>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/log.h"
#include "halcyon/base/text.h"

namespace halcyon::plots {
namespace {

constexpr int kPixelsPerCentimetre = 50;

// Debian's package does not know where its own tables lie.
void prepare_environment() {
  if (std::getenv("MAGPLUS_HOME") == nullptr) {
    HALCYON_CHECK_KIND(std::filesystem::exists("/usr/share/magics"), output, "plot",
                       "expected the tables of Magics in /usr/share/magics; set MAGPLUS_HOME to "
                       "where Magics is installed");
    ::setenv("MAGPLUS_HOME", "/usr", 0);
  }
  ::setenv("MAGPLUS_QUIET", "on", 0);
}

void on_warning(void*, const char* message) {
  log::debug("{}", message);
}

void on_error(void* messages, const char* message) {
  *static_cast<std::string*>(messages) += message;
}

}  // namespace

void Magics::set(const char* name, const char* text) {
  used_.insert(name);
  mag_setc(name, text);
}

void Magics::set(const char* name, double number) {
  HALCYON_ASSERT(std::isfinite(number));
  used_.insert(name);
  mag_setr(name, number);
}

void Magics::set(const char* name, int number) {
  used_.insert(name);
  mag_seti(name, number);
}

void Magics::set(const char* name, const std::vector<double>& numbers) {
  HALCYON_ASSERT(!numbers.empty());  // Magics crashes on empty lists
  used_.insert(name);
  mag_set1r(name, numbers.data(), static_cast<int>(numbers.size()));
}

void Magics::set(const char* name, const std::vector<int>& numbers) {
  HALCYON_ASSERT(!numbers.empty());
  used_.insert(name);
  mag_set1i(name, numbers.data(), static_cast<int>(numbers.size()));
}

void Magics::set(const char* name, const std::vector<std::string>& texts) {
  HALCYON_ASSERT(!texts.empty());
  used_.insert(name);
  std::vector<const char*> pointers;
  pointers.reserve(texts.size());
  for (const auto& text : texts) pointers.push_back(text.c_str());
  mag_set1c(name, pointers.data(), static_cast<int>(pointers.size()));
}

void Magics::set_matrix(const char* name, const std::vector<double>& values, int columns) {
  HALCYON_ASSERT(columns > 1 && values.size() >= 2 * static_cast<std::size_t>(columns));
  used_.insert(name);
  mag_set2r(name, values.data(), columns, static_cast<int>(values.size()) / columns);
}

void Magics::text(double x, double y, double width, double height,
                  const std::vector<std::string>& lines, double size, const char* justification,
                  bool bold) {
  std::vector<std::string> marked;
  marked.reserve(lines.size());
  // the style stands beside the text: markup in it would end at the first escaped character
  for (const auto& line : lines) marked.push_back(line.empty() ? " " : escaped(line));
  set("text_mode", "positional");
  set("text_line_count", static_cast<int>(marked.size()));
  set("text_lines", marked);
  set("text_box_x_position", x);
  set("text_box_y_position", y);
  set("text_box_x_length", width);
  set("text_box_y_length", height);
  set("text_justification", justification);
  set("text_font", "dejavusans");
  set("text_font_size", size);
  set("text_font_style", bold ? "bold" : "normal");
  set("text_colour", "black");
  set("text_border", false);
  mag_text();
}

void Magics::reset() {
  for (const auto& name : used_) mag_reset(name.c_str());
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (static_cast<unsigned char>(c) >= ' ') {
      out += c;
    }
  }
  return out;
}

void draw_png(const std::filesystem::path& path, double width, double height,
              const std::function<void(Magics&)>& draw) {
  HALCYON_CHECK_KIND(path.extension() == ".png", output, "plot",
                     "expected a file name that ends in .png, got {}", path.string());
  static std::mutex one_at_a_time;
  const std::scoped_lock lock(one_at_a_time);
  prepare_environment();
  write_atomically(path, [&](const std::filesystem::path& temporary) {
    std::string errors;
    const std::filesystem::path made = temporary.string() + ".png";  // Magics adds the extension
    std::exception_ptr failure;
    mag_open();
    mag_clear_listeners();
    mag_add_warning_listener(nullptr, on_warning);
    mag_add_info_listener(nullptr, on_warning);
    mag_add_debug_listener(nullptr, on_warning);
    mag_add_error_listener(&errors, on_error);
    Magics page(width, height);
    try {
      page.set("output_format", "png");
      page.set("output_name", temporary.string());
      page.set("output_name_first_page_number", false);
      page.set("output_width", static_cast<int>(width * kPixelsPerCentimetre));
      page.set("layout", "positional");
      for (const std::string box : {"super_page", "page"}) {
        page.set((box + "_x_length").c_str(), width);
        page.set((box + "_y_length").c_str(), height);
        page.set((box + "_frame").c_str(), false);
      }
      page.set("page_x_position", 0.0);
      page.set("page_y_position", 0.0);
      page.set("page_id_line", false);
      draw(page);
    } catch (...) {
      failure = std::current_exception();
    }
    try {
      mag_close();  // draws the page
    } catch (const std::exception& error) {
      errors += error.what();
    }
    page.reset();
    mag_clear_listeners();
    if (failure) {
      std::filesystem::remove(made);
      std::rethrow_exception(failure);
    }
    std::error_code failed;
    std::filesystem::rename(made, temporary, failed);
    HALCYON_CHECK_KIND(!failed, output, "plot", "{}: Magics made no picture{}{}", path.string(),
                       errors.empty() ? "" : ": ", errors);
  });
}

}  // namespace halcyon::plots
