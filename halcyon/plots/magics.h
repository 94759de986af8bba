// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

// ECMWF's Magics as the plots use it. The library keeps one global state and is not thread-safe.
namespace halcyon::plots {

// Parameters and actions of the page being drawn; lengths are centimetres.
class Magics {
 public:
  Magics(double width, double height) : width_(width), height_(height) {}
  Magics(const Magics&) = delete;
  Magics& operator=(const Magics&) = delete;

  double width() const { return width_; }
  double height() const { return height_; }

  void set(const char* name, const char* text);
  void set(const char* name, const std::string& text) { set(name, text.c_str()); }
  void set(const char* name, double number);
  void set(const char* name, int number);
  void set(const char* name, bool on) { set(name, on ? "on" : "off"); }
  void set(const char* name, const std::vector<double>& numbers);
  void set(const char* name, const std::vector<int>& numbers);
  void set(const char* name, const std::vector<std::string>& texts);
  // Row-major, as many rows as the size allows.
  void set_matrix(const char* name, const std::vector<double>& values, int columns);

  // Lines of plain text in a box whose lower left corner is (x, y); sizes in centimetres.
  void text(double x, double y, double width, double height, const std::vector<std::string>& lines,
            double size, const char* justification = "left", bool bold = false);

 private:
  friend void draw_png(const std::filesystem::path&, double, double,
                       const std::function<void(Magics&)>&);
  void reset();

  double width_, height_;
  std::set<std::string> used_;
};

// Plain text as Magics wants it: its texts are markup.
std::string escaped(std::string_view text);

// Draws one page into a PNG file, atomically, one caller at a time; nothing is printed.
// Error(output) when no picture comes of it, with what Magics said.
void draw_png(const std::filesystem::path& path, double width, double height,
              const std::function<void(Magics&)>& draw);

}  // namespace halcyon::plots
