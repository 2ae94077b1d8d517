// `quantization_config` of config.json.
#pragma once

#include "absl/status/statusor.h"
#include "model/spec/config_view.h"

namespace essor::model {

// Whether the config speaks of an FP8 block checkpoint: quant_method fp8, fmt e4m3 (or
// float8_e4m3fn, the same), blocks of 128 x 128, activation_scheme dynamic (transformers'
// FineGrainedFP8Config). Which tensors are FP8 the checkpoint itself says, so the lists of
// exceptions are not read. False without the key; InvalidArgument naming the key for any other
// quantisation.
absl::StatusOr<bool> IsFp8Checkpoint(const ConfigView& config);

}  // namespace essor::model
