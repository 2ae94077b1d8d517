// The end of the last stage: final norm, head, sampling and scoring, with the vocabulary split over
// the stage's ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/stream.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/device/device_buffer.h"
#include "worker/engine/head_slice.h"
#include "worker/engine/logprob_report.h"
#include "worker/engine/token_chooser.h"
#include "worker/engine/whole_rows.h"
#include "worker/loader/rank_weights.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

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
  static constexpr uint32_t kRowsAtOnce = 64;  // rows of logits held at once

  OutputHead(Inputs inputs, Arena& arena);

  // `hidden`: [T, hidden], the residual stream after the last layer. `results` has rows.size()
  // elements. Errors are those of the exchange.
  absl::Status Run(const float* hidden, std::span<const HeadRow> rows,
                   std::span<HeadResult> results);

  // Bytes of the largest exchange Run() makes.
  static uint64_t MaxExchangeBytes(const std::vector<model::Range>& vocab_slices);

 private:
  void ComputeLogits(const float* hidden, std::span<const HeadRow> rows);
  absl::Status ReturnLogits(std::span<const HeadRow> rows, std::span<HeadResult> results);
  void Adjust(std::span<const HeadRow> rows);

  const Inputs inputs_;
  const HeadSlice slice_;
  const uint32_t hidden_size_;
  WholeRows whole_rows_;
  TokenChooser chooser_;
  LogprobReport report_;
  float* normed_;  // [kRowsAtOnce, hidden]
  float* logits_;  // [kRowsAtOnce, slice]
};

}  // namespace essor::worker
