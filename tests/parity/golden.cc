#include "tests/parity/golden.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/checkpoint.h"
#include "nlohmann/json.hpp"

namespace essor::testing {
namespace {

std::string DataPath(const std::string& file) {
  return absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/", file);
}

// log-sum-exp of a row.
double LogSumExp(std::span<const float> row) {
  const double max = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float value : row) sum += std::exp(value - max);
  return max + std::log(sum);
}

}  // namespace

absl::StatusOr<Golden> ReadGolden(const std::string& name) {
  std::ifstream file(DataPath("golden/" + name + ".json"));
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  if (json.is_discarded()) return absl::NotFoundError("no golden of this name: " + name);
  ESSOR_ASSIGN_OR_RETURN(const auto tensors,
                         model::OpenSafetensors(DataPath("golden/" + name + ".safetensors")));
  Golden golden{.bf16_kl = json.at("bf16_kl"), .prompts = {}};
  for (const auto& entry : json.at("prompts")) {
    GoldenPrompt prompt{.ids = entry.at("ids"),
                        .greedy = entry.at("greedy"),
                        .greedy_gaps = entry.at("greedy_gaps"),
                        .index_gaps = entry.value("index_gaps", std::vector<float>()),
                        .logits = {}};
    ESSOR_ASSIGN_OR_RETURN(const auto logits,
                           tensors->Find(absl::StrCat("logits.", golden.prompts.size())));
    prompt.logits.resize(logits.shape[0] * logits.shape[1]);
    ESSOR_RETURN_IF_ERROR(model::DecodeToFloat(logits, 0, prompt.logits));
    golden.prompts.push_back(std::move(prompt));
  }
  return golden;
}

double MeanKl(std::span<const float> reference, std::span<const float> ours, size_t vocab_size) {
  const size_t rows = reference.size() / vocab_size;
  double total = 0;
  for (size_t row = 0; row < rows; ++row) {
    const auto p = reference.subspan(row * vocab_size, vocab_size);
    const auto q = ours.subspan(row * vocab_size, vocab_size);
    const double p_norm = LogSumExp(p);
    const double q_norm = LogSumExp(q);
    for (size_t i = 0; i < vocab_size; ++i) {
      const double log_p = p[i] - p_norm;
      total += std::exp(log_p) * (log_p - (q[i] - q_norm));
    }
  }
  return total / static_cast<double>(rows);
}

}  // namespace essor::testing
