#include "worker/loader/assign_weight.h"

#include "common/check.h"

namespace essor::worker {
namespace {

using kernels::PackedMatrix;
using model::WeightRole;

void SetExpert(kernels::GatedFfnWeights& ffn, WeightRole role, const PackedMatrix& matrix,
               const float* vector) {
  if (role == WeightRole::kGate) ffn.gate = matrix;
  if (role == WeightRole::kUp) ffn.up = matrix;
  if (role == WeightRole::kDown) ffn.down = matrix;
  if (role == WeightRole::kGateBias) ffn.gate_bias = vector;
  if (role == WeightRole::kUpBias) ffn.up_bias = vector;
  if (role == WeightRole::kDownBias) ffn.down_bias = vector;
}

bool AssignIndexer(WeightRole role, const PackedMatrix& matrix, const float* vector,
                   IndexerWeights& indexer) {
  switch (role) {
    case WeightRole::kIndexQuery:
      indexer.query = matrix;
      return true;
    case WeightRole::kIndexKey:
      indexer.key = matrix;
      return true;
    case WeightRole::kIndexKeyNorm:
      indexer.key_norm = vector;
      return true;
    case WeightRole::kIndexKeyNormBias:
      indexer.key_norm_bias = vector;
      return true;
    case WeightRole::kIndexWeights:
      indexer.weights = matrix;
      return true;
    default:
      return false;
  }
}

// Whether `role` is one of latent attention's own. Those of heads come in ascending order.
bool AssignLatent(WeightRole role, const PackedMatrix& matrix, const float* vector,
                  LatentWeights& latent) {
  switch (role) {
    case WeightRole::kQueryDown:
      latent.query_down = matrix;
      return true;
    case WeightRole::kQueryDownNorm:
      latent.query_down_norm = vector;
      return true;
    case WeightRole::kLatentDown:
      latent.latent_down = matrix;
      return true;
    case WeightRole::kRopeKey:
      latent.rope_key = matrix;
      return true;
    case WeightRole::kLatentNorm:
      latent.latent_norm = vector;
      return true;
    case WeightRole::kKeyUp:
      latent.key_up.push_back(matrix);
      return true;
    case WeightRole::kValueUp:
      latent.value_up.push_back(matrix);
      return true;
    default:
      return AssignIndexer(role, matrix, vector, latent.indexer);
  }
}

// Whether `role` is one of linear attention's own.
bool AssignLinear(WeightRole role, const PackedMatrix& matrix, const float* vector,
                  LinearAttentionWeights& linear) {
  switch (role) {
    case WeightRole::kLinearInput:
      linear.input = matrix;
      return true;
    case WeightRole::kOutputGate:
      linear.output_gate = matrix;
      return true;
    case WeightRole::kLinearNorm:
      linear.norm = vector;
      return true;
    case WeightRole::kDeltaGates:
      linear.delta_gates = matrix;
      return true;
    case WeightRole::kQueryFilter:
      linear.query_filter = vector;
      return true;
    case WeightRole::kKeyFilter:
      linear.key_filter = vector;
      return true;
    case WeightRole::kValueFilter:
      linear.value_filter = vector;
      return true;
    case WeightRole::kDecayRate:
      linear.decay_rate = vector;
      return true;
    case WeightRole::kDecayBias:
      linear.decay_bias = vector;
      return true;
    default:
      return false;
  }
}

// `first_expert` is the number of the rank's first one.
void AssignInLayer(const model::WeightBinding& binding, uint64_t first_expert,
                   const PackedMatrix& matrix, const float* vector, LayerWeights& layer) {
  if (binding.expert >= 0) {
    SetExpert(layer.experts[static_cast<uint64_t>(binding.expert) - first_expert], binding.role,
              matrix, vector);
    return;
  }
  if (AssignLatent(binding.role, matrix, vector, layer.latent)) return;
  if (AssignLinear(binding.role, matrix, vector, layer.linear)) return;
  switch (binding.role) {
    case WeightRole::kAttentionNorm:
      layer.attention_norm = vector;
      break;
    case WeightRole::kQuery:
      layer.query = matrix;
      break;
    case WeightRole::kKey:
      layer.key = matrix;
      break;
    case WeightRole::kValue:
      layer.value = matrix;
      break;
    case WeightRole::kOutput:
      layer.output = matrix;
      break;
    case WeightRole::kQueryBias:
      layer.query_bias = vector;
      break;
    case WeightRole::kKeyBias:
      layer.key_bias = vector;
      break;
    case WeightRole::kValueBias:
      layer.value_bias = vector;
      break;
    case WeightRole::kOutputBias:
      layer.output_bias = vector;
      break;
    case WeightRole::kSinks:
      layer.sinks = vector;
      break;
    case WeightRole::kQueryNorm:
      layer.query_norm = vector;
      break;
    case WeightRole::kKeyNorm:
      layer.key_norm = vector;
      break;
    case WeightRole::kFfnNorm:
      layer.ffn_norm = vector;
      break;
    case WeightRole::kAttentionPostNorm:
      layer.attention_post_norm = vector;
      break;
    case WeightRole::kFfnPostNorm:
      layer.ffn_post_norm = vector;
      break;
    case WeightRole::kRouter:
      layer.router = matrix;
      break;
    case WeightRole::kRouterBias:
      layer.router_bias = vector;
      break;
    case WeightRole::kSharedGate:
      layer.shared_gate = matrix;
      break;
    case WeightRole::kRouterLogitBias:
      layer.router_logit_bias = vector;
      break;
    default:
      SetExpert(layer.dense, binding.role, matrix, vector);
      break;
  }
}

void AssignDraft(const model::WeightBinding& binding, uint64_t first_expert,
                 const PackedMatrix& matrix, const float* vector, DraftLayerWeights& draft) {
  switch (binding.role) {
    case WeightRole::kEmbedding:
      draft.embedding = matrix;
      break;
    case WeightRole::kDraftEmbeddingNorm:
      draft.embedding_norm = vector;
      break;
    case WeightRole::kDraftHiddenNorm:
      draft.hidden_norm = vector;
      break;
    case WeightRole::kDraftInput:
      draft.input = matrix;
      break;
    case WeightRole::kFinalNorm:
      draft.final_norm = vector;
      break;
    case WeightRole::kHead:
      draft.head = matrix;
      break;
    default:
      AssignInLayer(binding, first_expert, matrix, vector, draft.layer);
      break;
  }
}

}  // namespace

void AssignWeight(const model::WeightBinding& binding, const model::RankLayout& layout,
                  const PackedMatrix& matrix, const float* vector, RankWeights& weights) {
  if (binding.layer < 0) {
    if (binding.role == WeightRole::kEmbedding) weights.embedding = matrix;
    if (binding.role == WeightRole::kHead) weights.head = matrix;
    if (binding.role == WeightRole::kFinalNorm) weights.final_norm = vector;
    return;
  }
  const uint64_t index = static_cast<uint64_t>(binding.layer) - layout.layers.begin;
  if (index < weights.layers.size()) {
    AssignInLayer(binding, layout.per_layer[index].experts.begin, matrix, vector,
                  weights.layers[index]);
    return;
  }
  // Their numbers go on from the last stage's last layer.
  const uint64_t draft = index - weights.layers.size();
  ESSOR_CHECK(draft < weights.draft_layers.size());
  AssignDraft(binding, layout.per_draft_layer[draft].experts.begin, matrix, vector,
              weights.draft_layers[draft]);
}

}  // namespace essor::worker
