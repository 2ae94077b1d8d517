// Flags that say how tokens are chosen, shared by the commands that generate.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "essor/v1/types.pb.h"

namespace essor::cli {

// Unset values are not sent: the server's defaults apply.
struct SamplingFlags {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int32_t> top_k;
  std::optional<double> min_p;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> max_new_tokens;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::optional<double> typical_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  std::optional<uint32_t> min_new_tokens;
};

// `default_temperature` is named in the help: "0", "the model's own".
void AddSamplingFlags(CLI::App& app, SamplingFlags& flags, const std::string& default_temperature);

// InvalidArgument naming the flag for a value outside the range that the protocol states, NaN
// included.
absl::Status CheckSamplingFlags(const SamplingFlags& flags);

v1::SamplingParams ToSamplingParams(const SamplingFlags& flags);

// InvalidArgument naming `flag` when `text` is not UTF-8, which no request can carry.
absl::Status CheckUtf8(const std::string& flag, const std::string& text);

}  // namespace essor::cli
