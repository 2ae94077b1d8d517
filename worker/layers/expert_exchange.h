// Routed experts for the tokens of several data-parallel groups: rows go to the ranks that have
// their experts, outputs come back and are added where the row came from, in the router's order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/linear.h"
#include "kernels/stream.h"
#include "model/plan/scratch_widths.h"
#include "worker/device/device_buffer.h"
#include "worker/layers/expert_dispatch.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// Shared by the layers of a rank; contents live for one Run().
struct ExpertExchangeScratch {
  uint64_t rows_max = 0;           // model::ExpertExchangeSizes::rows
  float* rows[2] = {};             // [rows_max, hidden] each
  uint32_t* expert_ids = nullptr;  // [choices], of all tokens of a step
  float* expert_weights = nullptr;

  static ExpertExchangeScratch Take(Arena& arena, const model::ExpertExchangeSizes& sizes,
                                    uint32_t hidden_size);
};

// The rows of a group that one of its ranks routes: the rows are divided into equal consecutive
// parts, of which the last ones may be shorter or empty.
struct RowPart {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
};
RowPart PartOfRows(uint32_t num_rows, uint32_t num_ranks, uint32_t index);

// Of one layer and rank. All ranks of the stage call Run() for the same steps, whether they have
// rows or not. Owned and called by the rank's engine thread; everything is borrowed.
//
// First all ranks gather all choices, 4 bytes each (and with weigh_input their weights); rounds and
// sizes then follow everywhere by the same rules (expert_dispatch.h). A row of activations travels
// once to each rank that has one of its experts, in bfloat16 where the experts' first product
// rounds to it anyway, else in float32; an expert's output, or a slice of it, in float32. With
// whole experts the result has the bits of kernels::MoeFfn on one rank that has them all.
class ExpertExchange {
 public:
  struct Inputs {
    ExpertHolders holders;
    uint32_t rank_in_stage;
    uint32_t group_size;  // ranks of a data-parallel group
    uint32_t hidden_size;
    uint32_t top_k;
    bool weigh_input;
    kernels::GatedActivation activation;
    uint32_t first_expert;
    std::span<const kernels::GatedFfnWeights> experts;  // this rank's
    ExpertExchangeScratch scratch;
    Communicator* stage;
    kernels::Stream* stream;
  };
  explicit ExpertExchange(Inputs inputs);
  ExpertExchange(const ExpertExchange&) = delete;
  ExpertExchange& operator=(const ExpertExchange&) = delete;

  // This rank's part of its group's rows; group_rows[g] = rows of group g in the step.
  RowPart OwnPart(std::span<const uint32_t> group_rows) const;

  // y[t] = the weighed sum of x[t]'s experts for the rows of OwnPart(). x, y: [part, hidden];
  // expert_ids and expert_weights, [part, top_k], have room for the largest part of any rank.
  // Errors are those of the exchange, and Internal for choices that no router makes.
  absl::Status Run(std::span<const uint32_t> group_rows, const float* x, const uint32_t* expert_ids,
                   const float* expert_weights, float* y);

 private:
  absl::Status GatherChoices(const uint32_t* expert_ids, const float* expert_weights);
  absl::Status CheckChoices() const;
  absl::Status RunRound(DispatchRound round, const float* x, const float* expert_weights, float* y);
  // Rows of this round's Dispatch to the ranks that compute them; where they are then.
  absl::StatusOr<const float*> SendRows(const float* x);
  // The experts' outputs for `rows`.
  void Compute(const float* rows, float* outputs);
  absl::Status Exchange(const float* sent, const std::vector<uint64_t>& send_rows, float* received,
                        const std::vector<uint64_t>& receive_rows, uint64_t element_bytes);
  float* OtherThan(const float* rows) const;

  const Inputs inputs_;
  const bool bfloat16_;             // how rows travel
  std::vector<uint32_t> num_rows_;  // [R], of the step
  ExpertChoices choices_{};
  Dispatch dispatch_;
  std::vector<uint64_t> send_bytes_;     // [R], of one exchange
  std::vector<uint64_t> receive_bytes_;  // likewise
  std::vector<uint32_t> received_ids_;   // [received rows, top_k]
  std::vector<float> received_weights_;  // likewise, with weigh_input
};

}  // namespace essor::worker
