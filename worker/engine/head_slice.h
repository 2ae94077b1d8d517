// What the parts of the output head share: a rank's slice of the vocabulary and the exchange with
// the other ranks of the stage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/status_macros.h"
#include "kernels/logit_adjustment.h"
#include "kernels/sampling.h"
#include "kernels/stream.h"
#include "model/plan/parallel_plan.h"
#include "worker/engine/step.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// A row of the step that needs its logits.
struct HeadRow {
  uint32_t row = 0;  // of the step
  bool sample = false;
  kernels::RowSampling sampling = {};                  // when sample, as are the next two
  std::optional<kernels::RowAdjustment> adjustment{};  // of the logits it is sampled from
  std::optional<uint32_t> logprobs{};  // wanted of the sampled token and of the n most probable
  bool score = false;
  TokenId target = 0;      // when score, as is the next
  uint32_t score_top = 0;  // also the n most probable
  bool return_logits = false;
};

// Parallel to the HeadRows asked for. Log-probabilities are those of the logits before any
// adjustment; -infinity for no token, NaN for a target where the logits are not finite.
struct HeadResult {
  TokenId token = 0;           // kNoToken where the logits are not finite
  TokenLogprob token_logprob;  // with HeadRow::logprobs
  TokenLogprob target;         // with HeadRow::score
  std::vector<float> logits;   // [vocabulary] when asked for
};

// Borrowed by the parts of one output head.
struct HeadSlice {
  model::Range vocab;                      // of this rank
  std::vector<model::Range> vocab_slices;  // of the stage's ranks, in order
  Communicator* stage = nullptr;
  kernels::Stream* stream = nullptr;

  uint32_t first_id() const { return static_cast<uint32_t>(vocab.begin); }
  uint32_t width() const { return static_cast<uint32_t>(vocab.size()); }
  size_t num_ranks() const { return vocab_slices.size(); }
  bool Holds(TokenId token) const { return token >= vocab.begin && token < vocab.end; }

  // `all` gets rank i's part at i * mine.size(). Errors are those of the exchange.
  template <typename T>
  absl::Status Gather(const std::vector<T>& mine, std::vector<T>* all) const {
    all->resize(num_ranks() * mine.size());
    return stage->AllGather(std::as_bytes(std::span(mine)),
                            std::as_writable_bytes(std::span(*all)));
  }

  // The same of two vectors in one exchange.
  template <typename A, typename B>
  absl::Status Gather(const std::vector<A>& a, const std::vector<B>& b, std::vector<A>* all_a,
                      std::vector<B>* all_b) const {
    const size_t a_bytes = a.size() * sizeof(A);
    const size_t b_bytes = b.size() * sizeof(B);
    std::vector<std::byte> mine(a_bytes + b_bytes);
    std::vector<std::byte> all;
    if (a_bytes > 0) std::memcpy(mine.data(), a.data(), a_bytes);
    if (b_bytes > 0) std::memcpy(mine.data() + a_bytes, b.data(), b_bytes);
    ESSOR_RETURN_IF_ERROR(Gather(mine, &all));
    all_a->resize(num_ranks() * a.size());
    all_b->resize(num_ranks() * b.size());
    for (size_t r = 0; r < num_ranks(); ++r) {
      const std::byte* part = all.data() + r * mine.size();
      if (a_bytes > 0) std::memcpy(all_a->data() + r * a.size(), part, a_bytes);
      if (b_bytes > 0) std::memcpy(all_b->data() + r * b.size(), part + a_bytes, b_bytes);
    }
    return absl::OkStatus();
  }
};

}  // namespace essor::worker
