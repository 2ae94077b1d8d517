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

}  // namespace essor::model
