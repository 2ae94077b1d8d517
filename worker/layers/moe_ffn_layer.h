// Mixture of experts. With the tokens on every rank of the stage each rank routes all tokens, runs
// its own experts (or slices of them) and its columns of the shared expert, and the outputs are
// added over the stage. With several data-parallel groups the ranks of a group divide its tokens
// among them, each has its part's experts computed wherever they are (expert_exchange.h), and the
// parts and the columns of the shared expert are added over the group.
#pragma once

#include <optional>

#include "worker/layers/expert_exchange.h"
#include "worker/layers/layer.h"

namespace essor::worker {

class MoeFfnLayer : public SubLayer {
 public:
  MoeFfnLayer(const model::MoeFfn& spec, const LayerInputs& inputs);
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;
  bool ServesOtherGroups() const override { return exchange_.has_value(); }

 private:
  void Route(const float* x, uint32_t num_rows);
  void RunOwnExperts(const Batch& batch, const float* x, float* y);
  absl::Status RunSpreadExperts(const Batch& batch, const float* x, float* y);
  void AddSharedExpert(const Batch& batch, const float* x, float* y);

  const model::MoeFfn& spec_;
  const LayerInputs inputs_;
  std::optional<ExpertExchange> exchange_;  // with several data-parallel groups
};

}  // namespace essor::worker
