// The choice of the positions that latent attention reads (DeepSeek V3.2; docs/decisions/0009).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/index_selection.h"
#include "worker/layers/layer.h"

namespace essor::worker {

// One layer's indexer with its own cache of keys. Every rank of a tensor-parallel group computes
// all of it from the same bits, and so chooses the same. Owned and called by the rank's engine
// thread.
class PositionSelector {
 public:
  // The layer's cache of keys begins at `cache`.
  PositionSelector(const model::LatentAttention& attention, const LayerInputs& inputs,
                   std::byte* cache);

  // Stores the keys of the batch and chooses for its rows. x: [T, hidden], the layer's input;
  // query_latent: [T, q_lora], after its norm.
  void Choose(const Batch& batch, const float* x, const float* query_latent);

  // What the last Choose gave, until the next. Rows that see no more positions than are chosen, as
  // they are in the batch:
  std::span<const kernels::SequenceRows> whole() const { return whole_; }
  // Other rows, each as a sequence of its own in a cache of single tokens
  // (kernels::AsSingleTokens).
  std::span<const kernels::SequenceRows> chosen() const { return chosen_; }
  // The keys of a block.
  PieceArray KeptOfBlock() const;

 private:
  void DivideRows(const Batch& batch);
  void MakeKeys(const Batch& batch, const float* x);
  void MakeQueries(const Batch& batch, const float* x, const float* query_latent);
  void Multiply(const Batch& batch, const float* x, const kernels::PackedMatrix& weight, float* y);
  // Queries and keys, of which either may be none.
  void Rotate(const Batch& batch, float* queries, float* keys);

  const model::SparseIndexer& spec_;
  const model::RopeSpec& rope_;
  const IndexerWeights& weights_;
  const LayerInputs inputs_;
  const kernels::PagedIndexKeys cache_;
  std::vector<kernels::SequenceRows> whole_;
  std::vector<kernels::SequenceRows> chosen_;
};

}  // namespace essor::worker
