#include "common/config.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "common/scratch_directory.h"
#include "gtest/gtest.h"

namespace essor {
namespace {

struct Parsed {
  std::optional<int> exit_code;
  int port = 1;
  std::string name = "none";
};

Parsed Parse(std::vector<std::string> arguments) {
  CLI::App app("test", "config_test");
  Parsed parsed;
  app.add_option("--probe-port", parsed.port, "a number")->capture_default_str();
  app.add_option("--probe-name", parsed.name, "a word")->capture_default_str();
  AddStandardOptions(&app);
  arguments.insert(arguments.begin(), "config_test");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  parsed.exit_code = ParseOptions(&app, static_cast<int>(argv.size()), argv.data());
  return parsed;
}

class ConfigTest : public testing::Test {
 protected:
  void TearDown() override { unsetenv("ESSOR_PROBE_PORT"); }

  std::string WriteConfig(const std::string& text) { return scratch_.Write("essor.toml", text); }

 private:
  const ScratchDirectory scratch_;
};

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFile) {
  const std::string file = WriteConfig("probe-port = 3\nprobe-name = \"file\"\n");
  EXPECT_EQ(Parse({}).port, 1);
  EXPECT_EQ(Parse({"--config", file}).port, 3);
  EXPECT_EQ(Parse({"--config", file}).name, "file");
  setenv("ESSOR_PROBE_PORT", "5", 1);
  EXPECT_EQ(Parse({"--config", file}).port, 5);
  EXPECT_EQ(Parse({"--config", file, "--probe-port", "7"}).port, 7);
}

TEST_F(ConfigTest, BadUsageExitsWithTwo) {
  EXPECT_EQ(Parse({"--no-such-flag"}).exit_code, 2);
  EXPECT_EQ(Parse({"--probe-port", "word"}).exit_code, 2);
  EXPECT_EQ(Parse({"stray"}).exit_code, 2);
  EXPECT_EQ(Parse({"--config", "/nonexistent/essor.toml"}).exit_code, 2);
  EXPECT_EQ(Parse({"--config", WriteConfig("no-such-key = 1\n")}).exit_code, 2);
}

TEST_F(ConfigTest, SubcommandsHaveTheirOwnFlagsEnvironmentAndFile) {
  const auto parse = [](std::vector<std::string> arguments) {
    CLI::App app("test", "config_test");
    app.require_subcommand(1);
    Parsed parsed;
    CLI::App* first = app.add_subcommand("first", "one");
    first->add_option("--probe-port", parsed.port, "a number")->capture_default_str();
    app.add_subcommand("second", "two")->add_option("--probe-name", parsed.name, "a word");
    AddStandardOptions(&app);
    arguments.insert(arguments.begin(), "config_test");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    parsed.exit_code = ParseOptions(&app, static_cast<int>(argv.size()), argv.data());
    return parsed;
  };
  const std::string file = WriteConfig("probe-port = 3\n");
  EXPECT_EQ(parse({"first", "--config", file}).port, 3);
  EXPECT_EQ(parse({"second", "--config", file}).exit_code, 2);
  setenv("ESSOR_PROBE_PORT", "5", 1);
  EXPECT_EQ(parse({"first", "--config", file}).port, 5);
  EXPECT_EQ(parse({"first", "--config", file, "--probe-port", "7"}).port, 7);
  EXPECT_EQ(parse({}).exit_code, 2);
  EXPECT_EQ(parse({"third"}).exit_code, 2);
  EXPECT_EQ(parse({"first", "--probe-name", "x"}).exit_code, 2);
  EXPECT_EQ(parse({"--help"}).exit_code, 0);
  EXPECT_EQ(parse({"first", "--help"}).exit_code, 0);
  EXPECT_EQ(parse({"first", "--version"}).exit_code, 0);
}

TEST_F(ConfigTest, HelpNamesTheDefaultOfEveryOption) {
  CLI::App app("test", "config_test");
  bool flag = false;
  std::string word;
  int number = 7;
  app.add_flag("--probe-flag", flag, "a flag");
  app.add_option("--probe-word", word, "a word")->capture_default_str();
  app.add_option("--probe-number", number, "a number")->capture_default_str();
  AddStandardOptions(&app);
  const std::string help = app.help();
  EXPECT_NE(help.find("a flag (default: off)"), std::string::npos) << help;
  EXPECT_NE(help.find("a word (default: none)"), std::string::npos) << help;
  EXPECT_NE(help.find("--probe-number INT=7"), std::string::npos) << help;
}

TEST_F(ConfigTest, HelpAndVersionExitWithZero) {
  EXPECT_EQ(Parse({"--help"}).exit_code, 0);
  EXPECT_EQ(Parse({"--version"}).exit_code, 0);
  EXPECT_FALSE(Parse({}).exit_code.has_value());
}

}  // namespace
}  // namespace essor
