// A model's configuration as GGUF metadata.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/convert/convert.h"
#include "client/convert/weight_plan.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/spec/model_spec.h"

namespace essor::client {

// general.* and <architecture>.* keys of the model that `spec` describes. InvalidArgument for what
// GGUF cannot say: layers of different kinds, windows, unusual rope scaling.
absl::StatusOr<model::GgufMetadataList> GgufHeader(const model::ModelSpec& spec,
                                                   const std::string& name, ConvertType type);

}  // namespace essor::client
