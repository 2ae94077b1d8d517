#include "model/spec/model_spec.h"

#include <variant>

#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

// Parameters of one layer, with all of its experts or those that one token goes through.
uint64_t LayerParameters(const ModelSpec& spec, uint32_t layer, bool only_chosen_experts) {
  const auto* moe = std::get_if<MoeFfn>(&spec.layers[layer].ffn);
  uint64_t experts = 0;
  if (moe != nullptr) experts = only_chosen_experts ? moe->top_k : moe->num_experts;
  uint64_t total = 0;
  for (const WeightBinding& weight : LayerWeights(spec, layer, /*max_experts=*/1)) {
    total += weight.rows * weight.cols * (weight.expert < 0 ? 1 : experts);
  }
  return total;
}

}  // namespace

uint64_t ModelSpec::NumParameters() const {
  const uint64_t embedding = uint64_t{vocab_size} * hidden_size;
  uint64_t total = embedding + hidden_size + (tied_embeddings ? 0 : embedding);
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    total += LayerParameters(*this, layer, /*only_chosen_experts=*/false);
  }
  return total;
}

uint64_t ModelSpec::NumActiveParameters() const {
  // The embedding is looked up, not multiplied with; the head is, tied or not.
  uint64_t total = uint64_t{vocab_size} * hidden_size + hidden_size;
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    total += LayerParameters(*this, layer, /*only_chosen_experts=*/true);
  }
  return total;
}

const RopeSpec& RopeOf(const AttentionSpec& attention) {
  static const RopeSpec kNone;
  return std::visit(
      [](const auto& kind) -> const RopeSpec& {
        if constexpr (requires { kind.rope; }) return kind.rope;
        return kNone;
      },
      attention);
}

uint32_t NumHeads(const AttentionSpec& attention) {
  return std::visit(
      [](const auto& kind) {
        if constexpr (requires { kind.num_key_heads; }) {
          return kind.num_key_heads;
        } else {
          return kind.num_heads;
        }
      },
      attention);
}

bool IsVector(WeightRole role) {
  switch (role) {
    case WeightRole::kEmbedding:
    case WeightRole::kHead:
    case WeightRole::kQuery:
    case WeightRole::kKey:
    case WeightRole::kValue:
    case WeightRole::kOutput:
    case WeightRole::kRouter:
    case WeightRole::kGate:
    case WeightRole::kUp:
    case WeightRole::kDown:
    case WeightRole::kQueryDown:
    case WeightRole::kLatentDown:
    case WeightRole::kRopeKey:
    case WeightRole::kKeyUp:
    case WeightRole::kValueUp:
    case WeightRole::kLinearInput:
    case WeightRole::kOutputGate:
    case WeightRole::kDeltaGates:
    case WeightRole::kSharedGate:
    case WeightRole::kIndexQuery:
    case WeightRole::kIndexKey:
    case WeightRole::kIndexWeights:
    case WeightRole::kDraftInput:
      return false;
    default:
      return true;
  }
}

bool IsHeldAsFloat32(WeightRole role) {
  return role == WeightRole::kRouter || role == WeightRole::kSharedGate ||
         role == WeightRole::kIndexWeights;
}

// The keys of latent attention are transposed in every checkpoint, also where none is opened yet.
bool IsHeldUnquantised(const WeightBinding& weight) {
  return weight.transposed || weight.role == WeightRole::kKeyUp;
}

bool IsFfnMatrix(WeightRole role) {
  return role == WeightRole::kGate || role == WeightRole::kUp || role == WeightRole::kDown;
}

}  // namespace essor::model
