// Tying the weights a ModelSpec implies to the tensors a checkpoint holds.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/gguf.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// Bindings of all weights of `spec` to a checkpoint with Hugging Face names, checked: every tensor
// exists, is of a floating or quantised type and has exactly the rows and columns that the weights
// in it need; an e4m3 or 4-bit tensor has fitting scales (fp8_blocks.h, nibble_groups.h); and the
// checkpoint holds no tensor that `spec` does not account for, since that would mean computing
// something else than what was trained. InvalidArgument naming the file, the tensor and, for a
// shape, both shapes. `config_file` is named as the other side of a contradiction.
absl::StatusOr<std::vector<WeightBinding>> BindCheckpoint(const ModelSpec& spec,
                                                          const Checkpoint& checkpoint,
                                                          const std::string& config_file);

// The same for a GGUF file.
absl::StatusOr<std::vector<WeightBinding>> BindGguf(const ModelSpec& spec, const GgufFile& file);

// The element type that holds most bytes of the bound weights; but a 4-bit type of experts (see
// OnlyExperts) wins whatever the others take, since it says how columns may be cut.
DType PredominantType(const std::vector<WeightBinding>& bindings);

}  // namespace essor::model
