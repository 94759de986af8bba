// SPDX-License-Identifier: Apache-2.0
#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <new>

#include "apps/halcyon/commands.h"
#include "halcyon/base/error.h"
#include "halcyon/base/heap.h"
#include "halcyon/base/log.h"
#include "halcyon/base/suggest.h"
#include "halcyon/base/versions.h"

namespace {

using halcyon::ErrorKind;

// As `halcyon --help` and docs/errors.md tell them.
enum ExitCode : int {
  kDone = 0,
  kCommandLine = 2,
  kConfiguration = 3,
  kInput = 4,
  kOutput = 5,
  kNumerics = 6,
  kCommunication = 7,
  kBug = 70,
};

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::argument:
    case ErrorKind::unsupported:
      return kCommandLine;
    case ErrorKind::configuration:
      return kConfiguration;
    case ErrorKind::input:
      return kInput;
    case ErrorKind::output:
      return kOutput;
    case ErrorKind::numerics:
      return kNumerics;
    case ErrorKind::communication:
      return kCommunication;
  }
  return kBug;
}

int failed(int code, const char* what) {
  std::cout.flush();
  std::cerr << "halcyon: error: " << what << '\n';
  return code;
}

int run(int argc, char** argv) {
  CLI::App app{"Halcyon: learned weather data assimilation", "halcyon"};
  app.set_version_flag("--version", std::string("halcyon ") + halcyon::version());
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done, 2 command line, 3 configuration, 4 input, 5 output, 6 numerics, "
      "7 communication, 70 a "
      "fault of Halcyon");
  app.add_option_function<std::string>(
         "--log-level", [](const std::string& level) { halcyon::log::set_level(level); },
         "debug, info, warn, error or off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}))
      ->trigger_on_parse();
  halcyon::cli::add_analyze(app);
  halcyon::cli::add_train(app);
  halcyon::cli::add_evaluate(app);
  halcyon::cli::add_obs(app);
  halcyon::cli::add_plot(app);
  halcyon::cli::add_checkpoint(app);
  halcyon::cli::add_tune(app);
  halcyon::cli::add_info(app);
  // CLI11 would only say that a subcommand is missing
  if (argc > 1 && argv[1][0] != '-' && argv[1][0] != '\0') {
    std::vector<std::string> names;
    for (const auto* command : app.get_subcommands({})) names.push_back(command->get_name());
    if (std::find(names.begin(), names.end(), argv[1]) == names.end()) {
      const auto what = fmt::format("there is no subcommand {}{} (halcyon --help tells)", argv[1],
                                    halcyon::did_you_mean(argv[1], names));
      return failed(kCommandLine, what.c_str());
    }
  }
  try {
    app.parse(argc, argv);
    return kDone;
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return failed(kCommandLine, e.what());
  } catch (const halcyon::Error& e) {
    return failed(exit_code(e.kind()), e.what());
  } catch (const std::bad_alloc&) {
    return failed(kBug, "not enough memory");
  } catch (const c10::Error& e) {  // without the stack of LibTorch
    return failed(
        kBug, fmt::format("{} (a fault of Halcyon, please report it)", e.what_without_backtrace())
                  .c_str());
  } catch (const std::exception& e) {
    return failed(kBug, fmt::format("{} (a fault of Halcyon, please report it)", e.what()).c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  halcyon::keep_freed_memory();
  // a reader that goes away (`halcyon ... | head`) is no error and must not stop work on files
  std::signal(SIGPIPE, SIG_IGN);
  // a file that outgrows `ulimit -f` is an error of writing, as on a full disk
  std::signal(SIGXFSZ, SIG_IGN);
  errno = 0;
  int code = run(argc, argv);
  if (code == kDone && !std::cout.flush() && errno != EPIPE)
    code = failed(kOutput,
                  fmt::format("cannot write to standard output: {}", std::strerror(errno)).c_str());
  // HDF5's handler at exit would write on into a file on a full disk, and crash
  if (code == kOutput) std::_Exit(code);
  return code;
}
