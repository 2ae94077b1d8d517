// Carries out a weight plan: decodes, reorders, perturbs and encodes, a few rows at a time.
#pragma once

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "client/convert/weight_plan.h"
#include "model/checkpoint/checkpoint_writer.h"

namespace essor::client {

// Thread-compatible. Memory: a few MB, and one row of the widest tensor.
class WeightStream {
 public:
  // `writer` must outlive the stream, and have been created with the plan's declarations.
  explicit WeightStream(model::CheckpointWriter* writer) : writer_(writer) {}

  // The next tensor of the plan. InvalidArgument naming the tensor for values that the type cannot
  // hold; errors of the writer.
  absl::Status Write(const OutputTensor& tensor);

 private:
  absl::Status WritePart(const WeightPart& part, const model::TensorDeclaration& declaration);
  absl::StatusOr<double> NoiseScale(const WeightPart& part);

  model::CheckpointWriter* writer_;
  // Standard deviation by tensor name and first element: every expert asks for the same one.
  absl::flat_hash_map<std::pair<std::string, uint64_t>, double> deviations_;
};

// Row of the canonical order that stands at `row` of the interleaved order: the inverse of
// model::GgufRopeRow.
uint64_t CanonicalRow(uint64_t row, uint64_t head_dim);

}  // namespace essor::client
