#include "common/config.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iostream>

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

int Refuse(const CLI::App& app, const std::string& message) {
  std::cerr << app.get_name() << ": " << message << " (see --help)\n";
  return kBadUsage;
}

}  // namespace

void AddStandardOptions(CLI::App* app) {
  app->set_version_flag("--version", app->get_name() + " " + BuildId(), "Print the build and exit");
  // Not CLI::App::set_config(): that lets the file win over the environment.
  app->add_option(kConfigFlag, "Config file (TOML or INI): keys are the long flag names")
      ->configurable(false);
  app->allow_config_extras(CLI::config_extras_mode::error);
  for (CLI::Option* option : app->get_options()) {
    const auto& names = option->get_lnames();
    if (names.empty() || names[0] == "help" || names[0] == "version") continue;
    option->envname(EnvironmentName(names[0]));
  }
}

std::optional<int> ParseOptions(CLI::App* app, int argc, char** argv) {
  try {
    app->parse(argc, argv);
    const std::string path =
        (*app)[kConfigFlag]->count() > 0 ? (*app)[kConfigFlag]->as<std::string>() : std::string();
    if (!path.empty()) {
      std::ifstream file(path);
      if (!file) return Refuse(*app, "cannot read the config file " + path);
      app->parse_from_stream(file);
    }
  } catch (const CLI::Success& success) {  // --help, --version
    return app->exit(success);
  } catch (const CLI::ParseError& error) {
    return Refuse(*app, error.what());
  }
  return std::nullopt;
}

}  // namespace essor
