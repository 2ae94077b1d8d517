#include "common/config.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iostream>
#include <vector>

#include "common/version.h"

namespace essor {
namespace {

constexpr char kConfigFlag[] = "--config";
constexpr int kBadUsage = 2;

std::string EnvironmentName(std::string long_name) {
  std::transform(long_name.begin(), long_name.end(), long_name.begin(), [](unsigned char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(c));
  });
  return "ESSOR_" + long_name;
}

// "essor serve" for a subcommand.
std::string FullName(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent == nullptr ? app.get_name() : FullName(*parent) + " " + app.get_name();
}

int Refuse(const CLI::App& app, const std::string& message) {
  std::cerr << FullName(app) << ": " << message << " (see --help)\n";
  return kBadUsage;
}

// Words that no flag takes are what is wrong first: CLI11 would answer --help, or ask for a
// subcommand, before it looks at them.
std::optional<int> RefuseUnknown(const CLI::App& app) {
  const std::vector<std::string> unknown = app.remaining();
  if (unknown.empty()) return std::nullopt;
  return Refuse(app, "unknown argument: " + unknown.front());
}

// The subcommand that the command line names, else the app itself.
CLI::App* Selected(CLI::App* app) {
  const std::vector<CLI::App*> subcommands = app->get_subcommands();
  return subcommands.empty() ? app : Selected(subcommands.back());
}

// CLI11's help shows no default where it is "off" or empty.
void DescribeDefault(CLI::Option* option) {
  const bool is_flag = option->get_expected_min() == 0;
  if (!is_flag && !option->get_default_str().empty()) return;
  option->description(option->get_description() +
                      (is_flag ? " (default: off)" : " (default: none)"));
}

}  // namespace

void AddStandardOptions(CLI::App* app) {
  app->set_version_flag("--version", FullName(*app) + " " + BuildId(), "Print the build and exit");
  const std::vector<CLI::App*> subcommands = app->get_subcommands({});
  for (CLI::App* subcommand : subcommands) AddStandardOptions(subcommand);
  if (!subcommands.empty()) return;  // only what does the work has settings
  // Not CLI::App::set_config(): that lets the file win over the environment.
  app->add_option(kConfigFlag, "Config file (TOML or INI): keys are the long flag names")
      ->type_name("FILE")
      ->configurable(false);
  app->allow_config_extras(CLI::config_extras_mode::error);
  for (CLI::Option* option : app->get_options()) {
    const auto& names = option->get_lnames();
    if (names.empty() || names[0] == "help" || names[0] == "version") continue;
    option->envname(EnvironmentName(names[0]));
    DescribeDefault(option);
  }
}

std::optional<int> ParseOptions(CLI::App* app, int argc, char** argv) {
  try {
    app->parse(argc, argv);
    CLI::App* selected = Selected(app);
    const CLI::Option* config = selected->get_option_no_throw(kConfigFlag);
    if (config != nullptr && config->count() > 0) {
      const std::string path = config->as<std::string>();
      std::ifstream file(path);
      if (!file) return Refuse(*selected, "cannot read the config file " + path);
      selected->parse_from_stream(file);
    }
  } catch (const CLI::Success& success) {  // --help, --version
    if (const auto code = RefuseUnknown(*Selected(app))) return code;
    return app->exit(success);
  } catch (const CLI::ParseError& error) {
    if (const auto code = RefuseUnknown(*Selected(app))) return code;
    return Refuse(*Selected(app), error.what());
  }
  return std::nullopt;
}

}  // namespace essor
