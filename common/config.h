// Options of a binary from three places: flag > environment > config file. Only main() files
// include this.
#pragma once

#include <optional>
#include <string>

#include "CLI/CLI.hpp"

namespace essor {

// Prepares `app`: --version, --config FILE (TOML or INI, keys are the long flag names), for each
// option a variable ESSOR_<LONG NAME> (dashes become underscores), and the default in the help
// where CLI11 shows none. Where the app has subcommands, each of them gets this and the app itself
// only
// --version. Call after the options are added.
void AddStandardOptions(CLI::App* app);

// Parses the command line, then the environment, then the config file; a value from an earlier
// place wins. The exit code when the process should end now: 0 after --help or --version, 2 (with
// one line on stderr) on bad usage.
std::optional<int> ParseOptions(CLI::App* app, int argc, char** argv);

}  // namespace essor
