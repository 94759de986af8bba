// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace halcyon {

// What went wrong, from the user's side; the command line turns it into its exit code
// (docs/errors.md).
enum class ErrorKind {
  argument,       // a function was called with something it cannot take (Python: ValueError)
  configuration,  // a run's YAML is wrong
  input,          // a file that is missing, truncated, corrupt or of the wrong kind
  output,         // a product cannot be written
  numerics,       // NaN or divergence stopped the work
  communication,  // another process is dead, silent or cannot be reached
  unsupported,    // an argument that has a meaning, but is not done (Python: NotImplementedError)
};

// The one exception for users' errors. Its message reads "[operation] expected ..., got ...".
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

// A broken promise inside Halcyon: please report it.
class Bug : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Out of line, so that the checked path stays small.
[[noreturn]] void throw_error(ErrorKind kind, std::string_view operation, std::string_view what);
[[noreturn]] void throw_bug(const char* file, int line, const char* condition);

}  // namespace halcyon

// HALCYON_CHECK(x.dim() == 3, "modulate", "expected x of rank 3 or 4, got rank {}", x.dim());
#define HALCYON_CHECK(condition, operation, ...) \
  HALCYON_CHECK_KIND(condition, argument, operation, __VA_ARGS__)
#define HALCYON_CHECK_KIND(condition, kind, operation, ...)                                      \
  do {                                                                                           \
    if (!(condition)) [[unlikely]]                                                               \
      ::halcyon::throw_error(::halcyon::ErrorKind::kind, operation, ::fmt::format(__VA_ARGS__)); \
  } while (false)
#define HALCYON_ASSERT(condition)                           \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::halcyon::throw_bug(__FILE__, __LINE__, #condition); \
  } while (false)
