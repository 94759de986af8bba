// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

int main(int argc, char** argv) {
  CLI::App app{"Halcyon: learned weather data assimilation"};
  CLI11_PARSE(app, argc, argv);
}
