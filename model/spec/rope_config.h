// Rotary position embedding as Hugging Face configs describe it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "model/spec/config_view.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// What the config of one model family says besides the rotary keys themselves.
struct RopeContext {
  uint32_t head_dim = 0;
  uint32_t max_position_embeddings = 0;
  double default_theta = 10000.0;  // for an absent rope_theta
  double default_partial = 1.0;    // for an absent partial_rotary_factor
};

// Reads `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (older), and
// `partial_rotary_factor`. Known types: default, linear, llama3, yarn. InvalidArgument naming the
// key for any other type (dynamic and longrope among them) or a value out of range.
absl::StatusOr<RopeSpec> ReadRope(const ConfigView& config, const RopeContext& context);

}  // namespace essor::model
