// `quantization_config` of config.json.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "model/spec/config_view.h"

namespace essor::model {

// How the quantised matrices of the checkpoint are stored; nothing without the key.
//  * kF8E4M3: quant_method fp8, fmt e4m3 (or float8_e4m3fn, the same), blocks of 128 x 128,
//    activation_scheme dynamic (transformers' FineGrainedFP8Config).
//  * kF4E2M1: quant_method mxfp4, of experts (transformers' Mxfp4Config).
//  * kOffsetI4: quant_method compressed-tensors, format pack-quantized, with one group of layers
//    whose weights are symmetric integers of 4 bits in groups of 32, of experts; no quantised
//    activations.
// Which tensors are quantised the checkpoint itself says, so the lists of exceptions are not read.
// InvalidArgument naming the key for any other quantisation.
absl::StatusOr<std::optional<DType>> QuantisedType(const ConfigView& config);

}  // namespace essor::model
