// Which tensors a converted model has, and what each is made of. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/convert/convert.h"
#include "client/convert/source_model.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/spec/model_spec.h"

namespace essor::client {

// One weight of the output, a matrix [rows, cols] in the canonical order of its binding.
struct WeightPart {
  // Null for a weight that is made from random numbers. Points into the SourceModel.
  const SourceWeight* source = nullptr;
  uint64_t rows = 0;
  uint64_t cols = 0;
  // The output's rows stand in interleaved-pair order inside heads of so many rows; 0 = canonical.
  uint64_t interleaved_head_dim = 0;
  std::string name;  // Hugging Face name, the key of its random numbers
  // Standard deviation of the random numbers: of a made weight itself, or of the noise added to a
  // source weight as a share of that weight's own standard deviation. 0 = none.
  double noise = 0.0;
  uint64_t seed = 0;
};

// One tensor of the output file: its parts one after the other, or given numbers of type f32.
struct OutputTensor {
  model::TensorDeclaration declaration;
  std::vector<WeightPart> parts;
  std::vector<float> values;
};

struct PlanOptions {
  bool to_gguf = false;
  ConvertType to = ConvertType::kBF16;
  std::optional<Upcycle> upcycle;
};

// The layout that is written, as a model::TensorExists: that of families with several is the
// published one, each expert's weights in tensors of their own.
bool PublishedLayout(const std::string& tensor);

// `output` is the spec of the output's config. InvalidArgument naming the tensor for a source
// weight that the output has no place for.
absl::StatusOr<std::vector<OutputTensor>> PlanWeights(const SourceModel& source,
                                                      const model::ModelSpec& output,
                                                      const PlanOptions& options);

}  // namespace essor::client
