// essor chat: one answer, or a conversation.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_format.h"
#include "client/cli/cluster_flags.h"
#include "client/cli/command.h"
#include "client/cli/interrupt.h"
#include "client/cli/sampling_flags.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

constexpr size_t kLineBytesMax = 1 << 20;

// A line of stdin without its newline; nullopt at the end of input or when a signal came.
absl::StatusOr<std::optional<std::string>> ReadLine(const Interrupt& interrupt) {
  std::string line;
  while (interrupt.count() == 0) {
    char c = 0;
    const ssize_t count = read(STDIN_FILENO, &c, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return line.empty() ? std::nullopt : std::optional(line);
    if (c == '\n') return line;
    line.push_back(c);
    if (line.size() > kLineBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a line of stdin has more than %d bytes", kLineBytesMax));
    }
  }
  return std::nullopt;
}

class ChatCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override;
  absl::Status CheckUsage() const override;
  absl::Status Run(const CommandContext& context) override;

 private:
  void AddMessage(const char* role, const std::string& content);
  // Streams the answer to the conversation so far to stdout and adds it; a stopped one as far as it
  // came.
  absl::Status Answer(client::InferenceClient& client, const Interrupt& interrupt);
  absl::Status Converse(client::InferenceClient& client, Interrupt& interrupt);

  ClusterFlags cluster_;
  SamplingFlags sampling_;
  std::string message_;
  std::string system_;
  v1::GenerateRequest request_;  // holds the conversation
};

void ChatCommand::AddFlags(CLI::App& app) {
  app.add_option("message", message_, "The question; without: a conversation, /exit ends it");
  app.add_option("--system", system_, "System message; without: the template's own")
      ->capture_default_str();
  AddClusterFlags(app, cluster_);
  AddSamplingFlags(app, sampling_, "the model's own");
}

absl::Status ChatCommand::CheckUsage() const {
  ESSOR_RETURN_IF_ERROR(CheckClusterFlags(cluster_));
  ESSOR_RETURN_IF_ERROR(CheckUtf8("MESSAGE", message_));
  ESSOR_RETURN_IF_ERROR(CheckUtf8("--system", system_));
  return CheckSamplingFlags(sampling_);
}

absl::Status ChatCommand::Run(const CommandContext& context) {
  Interrupt interrupt;
  const auto stop = [&] { return interrupt.count() > 0; };
  ESSOR_ASSIGN_OR_RETURN(const auto connection,
                         ClusterConnection::Open(cluster_, context, "chat", 1, stop));
  *request_.mutable_sampling() = ToSamplingParams(sampling_);
  if (!system_.empty()) AddMessage("system", system_);
  if (message_.empty()) return Converse(connection->client(), interrupt);
  AddMessage("user", message_);
  return Answer(connection->client(), interrupt);
}

void ChatCommand::AddMessage(const char* role, const std::string& content) {
  v1::ChatMessage& message = *request_.mutable_chat()->add_messages();
  message.set_role(role);
  message.set_content(content);
}

absl::Status ChatCommand::Answer(client::InferenceClient& client, const Interrupt& interrupt) {
  std::string answer;
  const absl::Status status = client.Generate(
      request_,
      [&](const v1::GenerateResponse& part) {
        answer += part.text();
        std::fwrite(part.text().data(), 1, part.text().size(), stdout);
        return std::fflush(stdout) == 0;
      },
      [&] { return interrupt.count() > 0; });
  if (!answer.empty() && answer.back() != '\n') std::fputc('\n', stdout);
  std::fflush(stdout);
  AddMessage("assistant", answer);
  return status;
}

absl::Status ChatCommand::Converse(client::InferenceClient& client, Interrupt& interrupt) {
  const bool is_terminal = isatty(STDIN_FILENO) == 1;
  while (true) {
    if (is_terminal) std::fputs("> ", stderr);
    ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> line, ReadLine(interrupt));
    if (!line.has_value() || *line == "/exit") break;
    if (line->empty()) continue;
    if (const absl::Status utf8 = CheckUtf8("the message", *line); !utf8.ok()) {
      if (!is_terminal) return utf8;
      std::fprintf(stderr, "%s\n", std::string(utf8.message()).c_str());
      continue;
    }
    AddMessage("user", *line);
    const absl::Status status = Answer(client, interrupt);
    if (!absl::IsCancelled(status)) ESSOR_RETURN_IF_ERROR(status);
    interrupt.Reset();  // Ctrl-C stopped the answer, not the conversation
  }
  if (is_terminal) std::fputc('\n', stderr);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Command> MakeChatCommand() { return std::make_unique<ChatCommand>(); }

}  // namespace essor::cli
