// Checkpoint slices -> packed weights of one rank.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"
#include "model/plan/parallel_plan.h"
#include "model/plan/weight_slices.h"
#include "worker/loader/rank_weights.h"

namespace essor::worker {

// In which precision matrices are held and multiplied.
enum class Precision {
  kStored,    // as the checkpoint stores them
  kFloat32,   // everything in float32: the reference
  kBFloat16,  // plain types in bfloat16; quantised ones as stored
};
// "auto", "float32", "bfloat16"; InvalidArgument naming the three for anything else.
absl::StatusOr<Precision> ParsePrecision(const std::string& dtype);

// How a matrix that the checkpoint stores as `stored` is held. Formats without a kernel of their
// own (f16, Q6_K) become bfloat16.
kernels::WeightFormat FormatFor(DType stored, Precision precision);

struct LoadRequest {
  const model::Checkpoint* checkpoint;
  const model::RankLayout* layout;
  const std::vector<model::WeightSlice>* slices;
  Precision precision = Precision::kStored;
  uint32_t num_threads = 1;
  // Called from loader threads with packed bytes so far and in all; must be thread-safe and quick.
  std::function<void(uint64_t bytes_done, uint64_t bytes_total)> progress = {};
  // Set from another thread to give up soon; the result is then Cancelled.
  const std::atomic<bool>* cancelled = nullptr;
};

// Reads only the rank's slices. Errors: InvalidArgument naming file and tensor (a tensor outside
// its file's types, or of another type than those it is multiplied together with),
// ResourceExhausted for memory, Cancelled.
absl::StatusOr<std::unique_ptr<const RankWeights>> LoadRankWeights(const LoadRequest& request);

}  // namespace essor::worker
