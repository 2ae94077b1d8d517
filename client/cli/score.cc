// essor score: log-probabilities of given token ids.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/cluster_flags.h"
#include "client/cli/command.h"
#include "client/cli/interrupt.h"
#include "client/cli/json_input.h"
#include "client/cli/json_output.h"
#include "client/cli/logits_file.h"
#include "client/cli/logprobs_json.h"
#include "client/cli/progress_line.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

constexpr size_t kSequencesPerRequest = 1024;  // the protocol's limit
constexpr size_t kTokensPerRequest = 1 << 19;  // keeps requests within some megabytes
constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);

using Sequences = std::vector<std::vector<uint32_t>>;

// What has come in so far.
class Scores {
 public:
  explicit Scores(const Sequences& sequences) {
    for (const auto& ids : sequences) {
      logprobs_.emplace_back(ids.size() - 1, std::numeric_limits<float>::quiet_NaN());
      tops_.emplace_back(ids.size() - 1);
      num_tokens_.push_back(ids.size());
    }
    positions_.resize(sequences.size());
  }

  // A run of positions; Internal when it does not fit.
  absl::Status Add(size_t index, const v1::ScoreResponse& part) {
    if (index >= logprobs_.size() || part.first_position() != positions_[index] ||
        part.num_positions() > num_tokens_[index] - positions_[index]) {
      return absl::InternalError(absl::StrFormat(
          "scores of sequence %d at position %d are out of order", index, part.first_position()));
    }
    positions_[index] += part.num_positions();
    std::vector<float>& logprobs = logprobs_[index];
    const size_t expected = std::min<size_t>(positions_[index], logprobs.size());
    if (part.first_position() + static_cast<size_t>(part.logprobs_size()) != expected) {
      return absl::InternalError(
          absl::StrFormat("%d log-probabilities came for %d positions of sequence %d",
                          part.logprobs_size(), part.num_positions(), index));
    }
    std::copy(part.logprobs().begin(), part.logprobs().end(),
              logprobs.begin() + part.first_position());
    std::copy_n(part.tops().begin(), std::min(part.tops_size(), part.logprobs_size()),
                tops_[index].begin() + part.first_position());
    return absl::OkStatus();
  }

  absl::Status CheckComplete() const {
    for (size_t i = 0; i < positions_.size(); ++i) {
      if (positions_[i] == num_tokens_[i]) continue;
      return absl::InternalError(
          absl::StrFormat("sequence %d: the stream ended after %d of %d positions", i,
                          positions_[i], num_tokens_[i]));
    }
    return absl::OkStatus();
  }

  const std::vector<std::vector<float>>& logprobs() const { return logprobs_; }
  // Beside each of logprobs(); empty where none came.
  const std::vector<std::vector<v1::TokenLogprobs>>& tops() const { return tops_; }
  const std::vector<uint64_t>& num_tokens() const { return num_tokens_; }

 private:
  std::vector<std::vector<float>> logprobs_;
  std::vector<std::vector<v1::TokenLogprobs>> tops_;
  std::vector<uint64_t> num_tokens_;
  std::vector<uint64_t> positions_;  // that have come
};

void PutTops(const std::vector<v1::TokenLogprobs>& tops, JsonOutput& json) {
  json.Key("tops");
  json.StartArray();
  for (const v1::TokenLogprobs& top : tops) {
    json.StartObject();
    PutTop(top, json);
    json.EndObject();
  }
  json.EndArray();
}

class ScoreCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override;
  absl::Status CheckUsage() const override;
  absl::Status Run(const CommandContext& context) override;

 private:
  // One request for `sequences` from `begin` on, as many as fit; `begin` moves behind them.
  v1::ScoreRequest NextRequest(const Sequences& sequences, size_t& begin) const;
  absl::Status Score(client::InferenceClient& client, const Sequences& sequences,
                     const client::StopFn& stop, LogitsFile* file, Scores& scores) const;
  void Print(const Scores& scores) const;
  void PrintJson(const Scores& scores) const;

  ClusterFlags cluster_;
  std::string tokens_path_;
  std::string logits_path_;
  uint32_t top_n_ = 0;
  bool json_ = false;
};

void ScoreCommand::AddFlags(CLI::App& app) {
  app.add_option("--tokens", tokens_path_, "JSON file with an array of arrays of token ids")
      ->capture_default_str();
  app.add_option("--logits", logits_path_,
                 "Also write all logits to this safetensors file: logits.0, logits.1, ...")
      ->capture_default_str();
  app.add_option("--top-n", top_n_,
                 "With --json: also this many likeliest tokens in place of each, 0 to 20")
      ->check(CLI::Range(0, 20))
      ->capture_default_str();
  app.add_flag("--json", json_, "Print every log-probability as JSON, instead of a table of sums");
  AddClusterFlags(app, cluster_);
}

absl::Status ScoreCommand::CheckUsage() const {
  if (tokens_path_.empty()) return absl::InvalidArgumentError("say which tokens: --tokens FILE");
  if (top_n_ > 0 && !json_) return absl::InvalidArgumentError("--top-n needs --json");
  return CheckClusterFlags(cluster_);
}

absl::Status ScoreCommand::Run(const CommandContext& context) {
  ESSOR_ASSIGN_OR_RETURN(const Sequences sequences, ReadTokenFile(tokens_path_));
  const Interrupt interrupt;
  const client::StopFn stop = [&] { return interrupt.count() > 0; };
  ESSOR_ASSIGN_OR_RETURN(const auto connection,
                         ClusterConnection::Open(cluster_, context, "score", 1, stop));
  Scores scores(sequences);
  std::unique_ptr<LogitsFile> file;
  if (!logits_path_.empty()) {
    ESSOR_ASSIGN_OR_RETURN(const v1::ModelInfo model,
                           connection->client().GetModel(kAnswerTimeout));
    ESSOR_ASSIGN_OR_RETURN(
        file, LogitsFile::Create(logits_path_, scores.num_tokens(), model.vocab_size()));
  }
  ESSOR_RETURN_IF_ERROR(Score(connection->client(), sequences, stop, file.get(), scores));
  ESSOR_RETURN_IF_ERROR(scores.CheckComplete());
  if (file != nullptr) ESSOR_RETURN_IF_ERROR(file->Finish());
  if (json_) {
    PrintJson(scores);
  } else {
    Print(scores);
  }
  return absl::OkStatus();
}

v1::ScoreRequest ScoreCommand::NextRequest(const Sequences& sequences, size_t& begin) const {
  v1::ScoreRequest request;
  request.set_return_logits(!logits_path_.empty());
  request.set_top_n(top_n_);
  size_t tokens = 0;
  size_t count = 0;
  while (begin < sequences.size() && count < kSequencesPerRequest &&
         (count == 0 || tokens + sequences[begin].size() <= kTokensPerRequest)) {
    const std::vector<uint32_t>& ids = sequences[begin++];
    request.add_sequences()->mutable_ids()->Assign(ids.begin(), ids.end());
    tokens += ids.size();
    ++count;
  }
  return request;
}

absl::Status ScoreCommand::Score(client::InferenceClient& client, const Sequences& sequences,
                                 const client::StopFn& stop, LogitsFile* file,
                                 Scores& scores) const {
  ProgressLine progress("essor score");
  uint64_t total = 0;
  for (const auto& ids : sequences) total += ids.size();
  uint64_t done = 0;
  for (size_t begin = 0; begin < sequences.size();) {
    const size_t first = begin;
    const v1::ScoreRequest request = NextRequest(sequences, begin);
    const auto on_part = [&](const v1::ScoreResponse& part) {
      const size_t index = first + part.sequence_index();
      ESSOR_RETURN_IF_ERROR(scores.Add(index, part));
      done += part.num_positions();
      progress.Show(absl::StrFormat("%d of %d tokens", done, total), absl::Now());
      return file == nullptr ? absl::OkStatus()
                             : file->Write(index, part.first_position(), part.logits());
    };
    ESSOR_RETURN_IF_ERROR(client.Score(request, on_part, stop));
  }
  return absl::OkStatus();
}

void ScoreCommand::Print(const Scores& scores) const {
  std::printf("sequence   tokens   log-probability   perplexity\n");
  for (size_t i = 0; i < scores.logprobs().size(); ++i) {
    const std::vector<float>& logprobs = scores.logprobs()[i];
    double sum = 0;
    for (const float logprob : logprobs) sum += logprob;
    const double perplexity =
        logprobs.empty() ? 1 : std::exp(-sum / static_cast<double>(logprobs.size()));
    std::printf("%8zu %8zu %17.4f %12.4f\n", i, logprobs.size() + 1, sum, perplexity);
  }
}

void ScoreCommand::PrintJson(const Scores& scores) const {
  JsonOutput json;
  json.StartObject();
  json.Key("sequences");
  json.StartArray();
  for (size_t i = 0; i < scores.logprobs().size(); ++i) {
    json.StartObject();
    json.Field("logprobs", std::span<const float>(scores.logprobs()[i]));
    if (top_n_ > 0) PutTops(scores.tops()[i], json);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  json.Print();
}

}  // namespace

std::unique_ptr<Command> MakeScoreCommand() { return std::make_unique<ScoreCommand>(); }

}  // namespace essor::cli
