// essor: the command line of the cluster.
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "client/cli/command.h"
#include "common/config.h"
#include "common/log.h"

namespace essor::cli {
namespace {

constexpr int kBadUsage = 2;

struct Entry {
  const char* name;
  const char* description;
  std::unique_ptr<Command> (*make)();
};
constexpr Entry kCommands[] = {
    {"serve", "Serve a model from this machine: one coordinator and workers", MakeServeCommand},
    {"chat", "Ask a question, or talk with the model", MakeChatCommand},
    {"generate", "Continue a prompt or sequences of token ids", MakeGenerateCommand},
    {"score", "Log-probabilities of given token ids", MakeScoreCommand},
    {"tokenize", "Texts (JSON on stdin) to token ids (JSON on stdout)", MakeTokenizeCommand},
    {"detokenize", "Token ids (JSON on stdin) to texts (JSON on stdout)", MakeDetokenizeCommand},
    {"render", "Chats (JSON on stdin) to prompts (JSON on stdout)", MakeRenderCommand},
    {"plan", "Which rank holds what, and how much memory that takes", MakePlanCommand},
    {"status", "What a running cluster does", MakeStatusCommand},
    {"convert", "Repack, quantise or upcycle a model", MakeConvertCommand},
};

int Fail(const std::string& command, const absl::Status& status, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "essor %s: %s\n", command.c_str(), std::string(status.message()).c_str());
  return code;
}

std::string BinDirectory() {
  char path[PATH_MAX] = {};
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
  const std::string binary(path, length > 0 ? static_cast<size_t>(length) : 0);
  return binary.substr(0, binary.rfind('/'));
}

int Main(int argc, char** argv) {
  CLI::App app{"Serves and asks large language models, on one machine or many.", "essor"};
  app.require_subcommand(1);
  std::vector<std::unique_ptr<Command>> commands;
  for (const Entry& entry : kCommands) {
    commands.push_back(entry.make());
    commands.back()->AddFlags(*app.add_subcommand(entry.name, entry.description));
  }
  AddStandardOptions(&app);
  if (const auto code = ParseOptions(&app, argc, argv)) return *code;
  // A config file is of one command; the coordinator and workers it starts get flags.
  unsetenv("ESSOR_CONFIG");

  const std::string name = app.get_subcommands().front()->get_name();
  size_t index = 0;
  while (kCommands[index].name != name) ++index;
  Command& command = *commands[index];
  if (const absl::Status usage = command.CheckUsage(); !usage.ok()) {
    return Fail(name, usage, kBadUsage);
  }
  InitLogging({.process = "essor"});
  absl::Status status = command.Run({.bin_directory = BinDirectory()});
  if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
    status = absl::UnavailableError("cannot write to stdout");
  }
  return status.ok() ? EXIT_SUCCESS : Fail(name, status, EXIT_FAILURE);
}

}  // namespace
}  // namespace essor::cli

int main(int argc, char** argv) { return essor::cli::Main(argc, argv); }
