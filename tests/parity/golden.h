// The goldens of tests/data/golden, made by make_goldens.py with Hugging Face transformers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"

namespace essor::testing {

struct GoldenPrompt {
  std::vector<TokenId> ids;
  std::vector<TokenId> greedy;     // the 16 tokens after it
  std::vector<float> greedy_gaps;  // best minus second-best logit at each of them
  // Likewise, of models with an indexer: how near its choice for the token before was to another
  // one, in standard deviations of the scores. Empty for others.
  std::vector<float> index_gaps;
  std::vector<float> logits;  // [ids, vocabulary], fp32
};

struct Golden {
  double bf16_kl = 0;  // transformers' own: mean KL(fp32 || bf16) over all positions
  std::vector<GoldenPrompt> prompts;
};

absl::StatusOr<Golden> ReadGolden(const std::string& name);

// Mean over rows of KL(softmax(reference) || softmax(ours)), in nats, computed in double.
double MeanKl(std::span<const float> reference, std::span<const float> ours, size_t vocab_size);

}  // namespace essor::testing
