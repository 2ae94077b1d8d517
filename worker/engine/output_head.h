// The end of the last stage: final norm, head, sampling and scoring, with the vocabulary split over
// the stage's ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/packed_matrix.h"
#include "kernels/sampling.h"
#include "kernels/stream.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/device/device_buffer.h"
#include "worker/loader/rank_weights.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// A row of the step that needs its logits.
struct HeadRow {
  uint32_t row = 0;  // of the step
  bool sample = false;
  kernels::RowSampling sampling = {};  // when sample
  bool score = false;
  TokenId target = 0;  // when score
  bool return_logits = false;
};

// Parallel to the HeadRows asked for.
struct HeadResult {
  TokenId token = 0;
  float logprob = 0;
  std::vector<float> logits;  // [vocabulary] when asked for
};

// Every rank of the last stage runs the same calls and gets the same results. Owned and called by
// the rank's engine thread.
class OutputHead {
 public:
  struct Inputs {
    const model::ModelSpec* spec;
    const model::RankLayout* layout;
    std::vector<model::Range> vocab_slices;  // of the stage's ranks, in order
    const RankWeights* weights;
    Communicator* stage;
    kernels::Stream* stream;
  };
  // Rows of logits held at once, and rows gathered whole from all ranks at once.
  static constexpr uint32_t kRowsAtOnce = 64;
  static constexpr uint32_t kGatheredRowsAtOnce = 8;

  OutputHead(Inputs inputs, Arena& arena);

  // `hidden`: [T, hidden], the residual stream after the last layer. `results` has rows.size()
  // elements. Errors are those of the exchange.
  absl::Status Run(const float* hidden, std::span<const HeadRow> rows,
                   std::span<HeadResult> results);

  // Bytes of the largest exchange Run() makes.
  static uint64_t MaxExchangeBytes(const std::vector<model::Range>& vocab_slices);

 private:
  void ComputeLogits(const float* hidden, std::span<const HeadRow> rows);
  absl::Status SampleBest(std::span<const HeadRow> rows, std::span<HeadResult> results);
  absl::Status Score(std::span<const HeadRow> rows, std::span<HeadResult> results);
  absl::Status GatherWholeRows(std::span<const HeadRow> rows, std::span<HeadResult> results);
  void AssembleRow(uint32_t index, uint32_t num_gathered, std::span<float> row) const;

  const Inputs inputs_;
  const uint32_t hidden_size_;
  const uint32_t width_;  // of this rank's slice
  const uint32_t widest_slice_;
  float* normed_;                 // [kRowsAtOnce, hidden]
  float* logits_;                 // [kRowsAtOnce, width_]
  float* sent_;                   // [kGatheredRowsAtOnce, widest_slice_]
  float* gathered_;               // [ranks, kGatheredRowsAtOnce, widest_slice_]
  std::vector<float> whole_row_;  // [vocabulary]
};

}  // namespace essor::worker
