// The commands of the `essor` binary. Each is one file; main.cc lists them.
#pragma once

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace essor::cli {

struct CommandContext {
  std::string bin_directory;  // where essor-coordinator and essor-worker are
};

// One subcommand. Legal order: AddFlags, then (flags parsed) CheckUsage, then Run; each once.
// Results go to stdout, everything else to stderr. The flags live in the command.
class Command {
 public:
  virtual ~Command() = default;
  virtual void AddFlags(CLI::App& app) = 0;
  // What is wrong with the combination of flags; ends the process with exit code 2.
  virtual absl::Status CheckUsage() const { return absl::OkStatus(); }
  // An error ends the process with exit code 1 and its message on stderr.
  virtual absl::Status Run(const CommandContext& context) = 0;
};

std::unique_ptr<Command> MakeChatCommand();
std::unique_ptr<Command> MakeConvertCommand();
std::unique_ptr<Command> MakeDetokenizeCommand();
std::unique_ptr<Command> MakeGenerateCommand();
std::unique_ptr<Command> MakePlanCommand();
std::unique_ptr<Command> MakeRenderCommand();
std::unique_ptr<Command> MakeScoreCommand();
std::unique_ptr<Command> MakeServeCommand();
std::unique_ptr<Command> MakeStatusCommand();
std::unique_ptr<Command> MakeTokenizeCommand();

}  // namespace essor::cli
