#include "model/plan/kv_kinds.h"

#include <algorithm>
#include <variant>

namespace essor::model {
namespace {

// Positions that a layer reads, its own included; 0 = all.
uint32_t WindowOf(const AttentionSpec& attention) {
  const auto* grouped = std::get_if<GroupedQueryAttention>(&attention);
  if (grouped == nullptr) return 0;
  return grouped->sliding_window > 0 ? grouped->sliding_window : grouped->chunk_size;
}

bool KeepsState(const AttentionSpec& attention) {
  return std::holds_alternative<LightningAttention>(attention) ||
         std::holds_alternative<GatedDeltaNet>(attention);
}

}  // namespace

bool IsWindowed(const AttentionSpec& attention, uint32_t max_context_tokens) {
  const uint32_t window = WindowOf(attention);
  return window > 0 && window < max_context_tokens;
}

KvKinds KvKindsOf(const ModelSpec& spec, uint32_t max_context_tokens) {
  KvKinds kinds;
  for (const LayerSpec& layer : spec.layers) {
    if (KeepsState(layer.attention)) {
      kinds.states = true;
    } else if (IsWindowed(layer.attention, max_context_tokens)) {
      kinds.window_tokens = std::max(kinds.window_tokens, WindowOf(layer.attention));
    } else {
      kinds.full = true;
    }
  }
  return kinds;
}

KvCapacity Smaller(const KvCapacity& a, const KvCapacity& b) {
  return {.num_blocks = std::min(a.num_blocks, b.num_blocks),
          .num_window_blocks = std::min(a.num_window_blocks, b.num_window_blocks),
          .num_snapshots = std::min(a.num_snapshots, b.num_snapshots)};
}

}  // namespace essor::model
