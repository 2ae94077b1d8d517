// gpt-oss 20b and 120b: a sink in each head's softmax, layers in turn with a window and without,
// YaRN whose magnitude goes into cos and sin, biases in all projections, in the router and in the
// experts, whose activation is clamped. Experts are stacked, in MXFP4 as published or in plain
// types as transformers saves them.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

absl::StatusOr<MoeFfn> ReadMoe(const ConfigView& config, uint32_t num_layers) {
  MoeFfn ffn{.router = {.logit_bias = true}, .expert_bias = true};
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("intermediate_size", kMaxWidth));
  ClampedSwiglu clamped;
  ESSOR_ASSIGN_OR_RETURN(clamped.limit, config.PositiveOr("swiglu_limit", clamped.limit));
  ESSOR_ASSIGN_OR_RETURN(clamped.alpha, config.PositiveOr("swiglu_alpha", clamped.alpha));
  ffn.clamped = clamped;
  return ffn;
}

// Without layer_types every other layer has a window, the first one included.
absl::StatusOr<std::vector<uint32_t>> ReadWindows(const ConfigView& config, uint32_t num_layers) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t window,
                         config.SizeOr("sliding_window", kMaxPositions, 128));
  if (config.Has("layer_types")) return ReadLayerWindows(config, num_layers, window);
  std::vector<uint32_t> windows(num_layers, 0);
  for (uint32_t layer = 0; layer < num_layers; layer += 2) windows[layer] = window;
  return windows;
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  // transformers would assume YaRN of its own without them.
  if (!config.Has("rope_scaling") && !config.Has("rope_parameters")) {
    return config.Error("rope_scaling", "missing");
  }
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-5,
                                                               .rope_theta = 150000,
                                                               .max_position_embeddings = 131072,
                                                               .num_kv_heads = 8,
                                                               .head_dim = 64}));
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", true));
  decoder.attention.qkv_bias = bias;
  decoder.attention.output_bias = bias;
  decoder.attention.sinks = true;
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn moe, ReadMoe(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(const auto windows, ReadWindows(config, decoder.num_layers));
  for (const uint32_t window : windows) {
    LayerSpec layer{.attention = decoder.attention, .ffn = moe};
    std::get<GroupedQueryAttention>(layer.attention).sliding_window = window;
    decoder.spec.layers.push_back(layer);
  }
  return decoder.spec;
}

// gate_up_proj: gates and ups in turn; [experts, hidden, 2 * intermediate] in plain types,
// [experts, 2 * intermediate, hidden] in MXFP4. down_proj: [experts, intermediate, hidden] and
// [experts, hidden, intermediate].
void BindExpert(const std::string& prefix, const TensorExists& exists, WeightBinding& binding) {
  const auto expert = static_cast<uint64_t>(binding.expert);
  const bool bias = IsVector(binding.role);
  const bool down = binding.role == WeightRole::kDown || binding.role == WeightRole::kDownBias;
  const bool up = binding.role == WeightRole::kUp || binding.role == WeightRole::kUpBias;
  const uint64_t outputs = bias ? binding.cols : binding.rows;
  binding.output_step = down ? 1 : 2;
  const std::string name = absl::StrCat(prefix, down ? "down_proj" : "gate_up_proj");
  if (!bias && exists(name + "_blocks")) {
    binding.tensor = name + "_blocks";
    binding.scales = name + "_scales";
    binding.packed_as = DType::kF4E2M1;
    binding.first_row = expert * outputs * binding.output_step + (up ? 1 : 0);
    return;
  }
  binding.tensor = bias ? name + "_bias" : name;
  binding.transposed = !bias;
  binding.first_row = bias ? expert : expert * binding.cols;
  binding.first_col = up ? 1 : 0;
  binding.tensor_cols = outputs * binding.output_step;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(
      spec,
      {.router = "router.weight", .router_logit_bias = "router.bias", .bind_expert = BindExpert},
      exists);
}

}  // namespace

extern const ModelFamily kGptOssFamily = {"gpt_oss", MakeSpec, Bind};

}  // namespace essor::model
