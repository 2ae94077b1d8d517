#include "model/plan/scratch_widths.h"

#include <algorithm>
#include <variant>

namespace essor::model {

ScratchWidths ScratchWidthsOf(const ModelSpec& spec, const RankLayout& layout) {
  ScratchWidths widths;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const RankLayout::Layer& layer = layout.per_layer[i];
    const LayerSpec& parts = spec.layers[layout.layers.begin + i];
    widths.attention = Widest(widths.attention, AttentionWidthsOf(parts.attention, layer));
    const auto* moe = std::get_if<MoeFfn>(&parts.ffn);
    if (moe == nullptr) continue;
    widths.experts = std::max<uint64_t>(widths.experts, moe->num_experts);
    widths.top_k = std::max<uint64_t>(widths.top_k, moe->top_k);
    if (layer.ffn.size() > 0) widths.shared = spec.hidden_size;
  }
  return widths;
}

ExpertExchangeSizes ExpertExchangeSizesOf(const ModelSpec& spec, const RankLayout& layout,
                                          uint32_t max_step_tokens) {
  const uint64_t ranks = layout.stage_ranks.size();
  const uint64_t group = layout.group_ranks.size();
  uint64_t top_k = 0;
  for (const LayerSpec& layer : spec.layers) {
    const auto* moe = std::get_if<MoeFfn>(&layer.ffn);
    if (moe != nullptr) top_k = std::max<uint64_t>(top_k, moe->top_k);
  }
  if (group == ranks || top_k == 0) return {};
  const uint64_t rows_of_rank = (max_step_tokens + group - 1) / group;
  return {.rows = std::max<uint64_t>(max_step_tokens, ranks * top_k),
          .choices = ranks * rows_of_rank * top_k};
}

}  // namespace essor::model
