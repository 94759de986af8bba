// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace CLI {
class App;
}

// One function and one file a subcommand: each adds itself to the program. The work runs while the
// arguments are parsed and reports what goes wrong by throwing (main.cpp has the exit codes).
namespace halcyon::cli {

void add_analyze(CLI::App& app);
void add_checkpoint(CLI::App& app);  // checkpoint inspect|convert
void add_evaluate(CLI::App& app);
void add_info(CLI::App& app);
void add_obs(CLI::App& app);  // obs inspect|convert
void add_plot(CLI::App& app);
void add_train(CLI::App& app);
void add_tune(CLI::App& app);

}  // namespace halcyon::cli
