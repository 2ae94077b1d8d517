// Tensor names of Llama-like decoders in Hugging Face checkpoints.
#pragma once

#include <string>
#include <vector>

#include "model/spec/families.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// What families call the parts that do not have Llama's names.
struct DecoderTensorNames {
  const char* dense = "mlp";           // holds the matrices of a dense FFN
  const char* moe = "mlp";             // holds router and experts
  const char* router = "gate.weight";  // inside `moe`
  const char* expert_gate = "gate_proj";
  const char* expert_up = "up_proj";
  const char* expert_down = "down_proj";
  const char* shared = "shared_experts";                     // the shared expert, inside `moe`
  const char* router_bias = "gate.e_score_correction_bias";  // likewise
  const char* shared_gate = "shared_expert_gate.weight";     // likewise
  const char* router_logit_bias = "gate.bias";               // likewise
  // Of dense FFNs whose gate and up are one tensor [2 * intermediate, hidden], gate first (what
  // follows "model.layers.N."); null where they are two.
  const char* dense_gate_up = nullptr;
  // Stacked experts stand transposed: [experts, hidden, 2 * intermediate] and [experts,
  // intermediate, hidden].
  bool transposed_experts = false;
  // Binds a weight of an expert in a form of the family's own; `prefix` is that of all experts,
  // "model.layers.0.mlp.experts.". Null: the forms below.
  void (*bind_expert)(const std::string& prefix, const TensorExists& exists,
                      WeightBinding& binding) = nullptr;
};

// One binding per weight of LogicalWeights(spec), in its order, but for embeddings and heads of
// draft layers that the checkpoint does not have. Experts bind to the stacked 3-D
// tensors that transformers 5 uses in memory where the checkpoint has them (`mlp.experts.
// gate_up_proj` [experts, 2 * intermediate, hidden], gate first, and `mlp.experts.down_proj`
// [experts, hidden, intermediate], or transposed_experts), otherwise to one tensor each, which may
// hold packed 4-bit integers (`weight_packed` and `weight_scale` instead of `weight`;
// model/checkpoint/nibble_groups.h).
std::vector<WeightBinding> BindDecoder(const ModelSpec& spec, const DecoderTensorNames& names,
                                       const TensorExists& exists);

// Whether `tensor` belongs to one of the spec.num_draft_layers layers that stand behind the last
// one, `model.layers.N.*`.
bool IsLayerBehindTheLast(const ModelSpec& spec, const std::string& tensor);

}  // namespace essor::model
