// essor generate: continuations of a prompt or of sequences of token ids.
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/cli/cluster_flags.h"
#include "client/cli/command.h"
#include "client/cli/interrupt.h"
#include "client/cli/json_input.h"
#include "client/cli/json_output.h"
#include "client/cli/logprobs_json.h"
#include "client/cli/sampling_flags.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

struct Continuation {
  std::vector<uint32_t> token_ids;
  std::string text;
  std::vector<v1::TokenLogprobs> logprobs;         // of token_ids, when asked for
  std::vector<v1::TokenLogprobs> prompt_logprobs;  // of the prompt's but the first, likewise
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
};

void PutLogprobs(const std::vector<v1::TokenLogprobs>& logprobs, JsonOutput& json) {
  json.StartArray();
  for (const v1::TokenLogprobs& logprob : logprobs) {
    json.StartObject();
    json.Field("logprob", logprob.logprob());
    PutTop(logprob, json);
    json.EndObject();
  }
  json.EndArray();
}

class GenerateCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override;
  absl::Status CheckUsage() const override;
  absl::Status Run(const CommandContext& context) override;

 private:
  absl::StatusOr<std::vector<v1::GenerateRequest>> Requests() const;
  // In the order of the requests, `n_` for each.
  absl::StatusOr<std::vector<Continuation>> Generate(
      client::InferenceClient& client, const std::vector<v1::GenerateRequest>& requests,
      const Interrupt& interrupt) const;
  void Print(const std::vector<Continuation>& continuations) const;
  void PrintJson(const std::vector<Continuation>& continuations) const;
  void AddOutputFlags(CLI::App& app);
  bool Streams(size_t num_requests) const { return !json_ && num_requests == 1 && n_ == 1; }

  ClusterFlags cluster_;
  SamplingFlags sampling_;
  std::string prompt_;
  std::string tokens_path_;
  uint32_t n_ = 1;
  std::optional<uint32_t> best_of_;
  std::optional<uint32_t> logprobs_;
  std::optional<uint32_t> prompt_logprobs_;
  bool echo_ = false;
  int32_t priority_ = 0;
  std::string tenant_;
  std::string cache_salt_;
  bool json_ = false;
  CLI::Option* prompt_option_ = nullptr;
};

void GenerateCommand::AddFlags(CLI::App& app) {
  prompt_option_ = app.add_option("--prompt", prompt_, "Text to continue")->capture_default_str();
  app.add_option("--tokens", tokens_path_,
                 "JSON file with an array of arrays of token ids, all sent at once")
      ->capture_default_str();
  app.add_option("--n", n_, "Continuations of each prompt")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_flag("--json", json_, "Print JSON when all is done, instead of the text as it comes");
  AddOutputFlags(app);
  AddSamplingFlags(app, sampling_, "0");
  AddClusterFlags(app, cluster_);
  sampling_.temperature = 0;
}

void GenerateCommand::AddOutputFlags(CLI::App& app) {
  app.add_option("--best-of", best_of_, "Make this many continuations and print the --n best")
      ->check(CLI::Range(1, 16))
      ->default_str("--n");
  app.add_option("--logprobs", logprobs_,
                 "With --json: log-probabilities, also of this many likeliest tokens, 0 to 20")
      ->check(CLI::Range(0, 20));
  app.add_option("--prompt-logprobs", prompt_logprobs_, "Likewise of the prompt's tokens")
      ->check(CLI::Range(0, 20));
  app.add_flag("--echo", echo_, "Begin the text with the prompt");
  app.add_option("--priority", priority_, "-100 to 100; higher ones are served first")
      ->check(CLI::Range(-100, 100))
      ->capture_default_str();
  app.add_option("--tenant", tenant_, "Whose request it is")->capture_default_str();
  app.add_option("--cache-salt", cache_salt_,
                 "Share cached prefixes with requests of the same salt only")
      ->capture_default_str();
}

absl::Status GenerateCommand::CheckUsage() const {
  if ((prompt_option_->count() > 0) == !tokens_path_.empty()) {
    return absl::InvalidArgumentError("say either --prompt TEXT or --tokens FILE");
  }
  if ((logprobs_.has_value() || prompt_logprobs_.has_value()) && !json_) {
    return absl::InvalidArgumentError("--logprobs and --prompt-logprobs need --json");
  }
  if (best_of_.value_or(n_) < n_) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--best-of %d is less than --n %d", *best_of_, n_));
  }
  ESSOR_RETURN_IF_ERROR(CheckUtf8("--prompt", prompt_));
  ESSOR_RETURN_IF_ERROR(CheckUtf8("--tenant", tenant_));
  ESSOR_RETURN_IF_ERROR(CheckUtf8("--cache-salt", cache_salt_));
  ESSOR_RETURN_IF_ERROR(CheckSamplingFlags(sampling_));
  return CheckClusterFlags(cluster_);
}

absl::Status GenerateCommand::Run(const CommandContext& context) {
  ESSOR_ASSIGN_OR_RETURN(const std::vector<v1::GenerateRequest> requests, Requests());
  const Interrupt interrupt;
  ESSOR_ASSIGN_OR_RETURN(const auto connection,
                         ClusterConnection::Open(cluster_, context, "generate", requests.size(),
                                                 [&] { return interrupt.count() > 0; }));
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Continuation> continuations,
                         Generate(connection->client(), requests, interrupt));
  if (json_) {
    PrintJson(continuations);
  } else if (!Streams(requests.size())) {
    Print(continuations);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::GenerateRequest>> GenerateCommand::Requests() const {
  v1::GenerateRequest request;
  *request.mutable_sampling() = ToSamplingParams(sampling_);
  request.mutable_sampling()->set_n(n_);
  if (best_of_) request.set_best_of(*best_of_);
  if (logprobs_) request.set_logprobs(*logprobs_);
  if (prompt_logprobs_) request.set_prompt_logprobs(*prompt_logprobs_);
  request.set_echo(echo_);
  request.set_priority(priority_);
  request.set_tenant(tenant_);
  request.set_cache_salt(cache_salt_);
  if (tokens_path_.empty()) {
    request.set_text(prompt_);
    return std::vector{request};
  }
  ESSOR_ASSIGN_OR_RETURN(const auto sequences, ReadTokenFile(tokens_path_));
  std::vector<v1::GenerateRequest> requests;
  for (const std::vector<uint32_t>& ids : sequences) {
    request.mutable_tokens()->mutable_ids()->Assign(ids.begin(), ids.end());
    requests.push_back(request);
  }
  return requests;
}

absl::StatusOr<std::vector<Continuation>> GenerateCommand::Generate(
    client::InferenceClient& client, const std::vector<v1::GenerateRequest>& requests,
    const Interrupt& interrupt) const {
  const bool streams = Streams(requests.size());
  std::vector<Continuation> continuations(requests.size() * n_);
  const auto on_part = [&](size_t index, const v1::GenerateResponse& part) {
    if (part.index() >= n_) return false;
    // The prompt begins all continuations of its request.
    for (size_t i = 0; part.has_prompt() && i < n_; ++i) {
      Continuation& begun = continuations[index * n_ + i];
      begun.text += part.prompt().text();
      begun.prompt_logprobs.insert(begun.prompt_logprobs.end(), part.prompt().logprobs().begin(),
                                   part.prompt().logprobs().end());
    }
    Continuation& continuation = continuations[index * n_ + part.index()];
    continuation.logprobs.insert(continuation.logprobs.end(), part.logprobs().begin(),
                                 part.logprobs().end());
    continuation.token_ids.insert(continuation.token_ids.end(), part.token_ids().begin(),
                                  part.token_ids().end());
    continuation.text += part.text();
    if (part.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      continuation.finish_reason = part.finish_reason();
    }
    const std::string& text = part.has_prompt() ? part.prompt().text() : part.text();
    if (streams) std::fwrite(text.data(), 1, text.size(), stdout);
    return !streams || std::fflush(stdout) == 0;
  };
  const std::vector<absl::Status> statuses =
      client.GenerateAll(requests, on_part, [&] { return interrupt.count() > 0; });
  if (streams && (statuses[0].ok() || !continuations[0].text.empty())) std::fputc('\n', stdout);
  for (size_t i = 0; i < statuses.size(); ++i) {
    if (statuses[i].ok()) continue;
    if (requests.size() == 1) return statuses[i];
    return absl::Status(statuses[i].code(),
                        absl::StrFormat("sequence %d: %s", i, std::string(statuses[i].message())));
  }
  for (size_t i = 0; i < continuations.size(); ++i) {
    if (continuations[i].finish_reason != v1::FINISH_REASON_UNSPECIFIED) continue;
    return absl::InternalError(
        absl::StrFormat("sequence %d: the stream ended without a finish reason", i / n_));
  }
  return continuations;
}

void GenerateCommand::Print(const std::vector<Continuation>& continuations) const {
  for (size_t i = 0; i < continuations.size(); ++i) {
    std::printf("%s[%zu]%s\n", i > 0 ? "\n" : "", i / n_, continuations[i].text.c_str());
  }
}

void GenerateCommand::PrintJson(const std::vector<Continuation>& continuations) const {
  JsonOutput json;
  json.StartObject();
  json.Key("sequences");
  json.StartArray();
  for (const Continuation& continuation : continuations) {
    json.StartObject();
    json.Field("token_ids", std::span<const uint32_t>(continuation.token_ids));
    json.Field("text", std::string_view(continuation.text));
    json.Field("finish_reason",
               std::string_view(continuation.finish_reason == v1::FINISH_REASON_LENGTH ? "length"
                                                                                       : "stop"));
    if (logprobs_.has_value()) {
      json.Key("logprobs");
      PutLogprobs(continuation.logprobs, json);
    }
    if (prompt_logprobs_.has_value()) {
      json.Key("prompt_logprobs");
      PutLogprobs(continuation.prompt_logprobs, json);
    }
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  json.Print();
}

}  // namespace

std::unique_ptr<Command> MakeGenerateCommand() { return std::make_unique<GenerateCommand>(); }

}  // namespace essor::cli
