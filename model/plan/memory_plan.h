// Memory in bytes per rank, computed before anything is loaded. No profiling: what is planned is
// what is allocated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "common/kv_type.h"
#include "model/plan/kv_kinds.h"
#include "model/plan/parallel_plan.h"
#include "model/plan/weight_slices.h"

namespace essor::model {

// What an instance is asked to hold at once.
struct ServingLimits {
  uint32_t block_tokens = 16;       // KV slots per block
  uint32_t max_step_tokens = 512;   // token budget of one step
  uint32_t max_sequences = 64;      // running at once
  uint32_t max_context_tokens = 0;  // of one sequence; 0 = what the model allows
  KvType kv_type = KvType::kBFloat16;
};

struct MemoryPlan {
  uint64_t weight_bytes = 0;
  uint64_t state_bytes = 0;     // of max_sequences sequences, in layers of linear attention
  uint64_t snapshot_bytes = 0;  // of capacity.num_snapshots copies of one sequence's states
  uint64_t kv_bytes = 0;        // of all blocks of both kinds
  // One KV block of this rank, all its layers of the kind.
  uint64_t block_bytes = 0;
  uint64_t window_block_bytes = 0;
  KvCapacity capacity;
  uint64_t activation_bytes = 0;  // workspaces of a step at max_step_tokens
  uint64_t exchange_bytes = 0;    // communicator buffers
  uint64_t total_bytes() const {
    return weight_bytes + state_bytes + snapshot_bytes + kv_bytes + activation_bytes +
           exchange_bytes;
  }
};

// Bytes of `slice` as the kernels hold it when the checkpoint stores `stored` (see
// kernels/packed_matrix.h for the packed formats; `fp32` = everything in float32). Vectors and
// what IsHeldAsFloat32 names are always float32; unless the bindings say otherwise, embedding and
// head of an f8_e4m3 model and all but the experts of a 4-bit one (OnlyExperts) are bf16; types
// without a packed format of their own (f16, Q6_K) become bf16.
uint64_t PackedBytes(const WeightSlice& slice, DType stored, bool fp32);
// Of all slices of a rank, each rounded up to a cache line. A slice's own `binding.stored` wins
// over `stored`.
uint64_t WeightBytes(const std::vector<WeightSlice>& slices, DType stored, bool fp32);

// KV cache of one token of one sequence on this rank.
uint64_t KvBytesPerToken(const RankLayout& layout, const ModelSpec& spec, KvType type);

// States of one sequence on this rank.
uint64_t StateBytesPerSequence(const RankLayout& layout, const ModelSpec& spec);

// What a rank's engine takes for its steps before the first one (worker/engine/engine.h), but for
// the alignment of each piece.
uint64_t StepBufferBytes(const RankLayout& layout, const ModelSpec& spec,
                         const ServingLimits& limits);
// Upper bounds of what a step's workspaces, those buffers included, and the rank's exchange buffers
// take.
uint64_t ActivationBytes(const RankLayout& layout, const ModelSpec& spec,
                         const ServingLimits& limits);
uint64_t ExchangeBytes(const RankLayout& layout, const ModelSpec& spec,
                       const ServingLimits& limits);

struct MemoryRequest {
  const ModelSpec* spec;
  const RankLayout* layout;
  // Of the rank; null: as the spec implies, for planning without a checkpoint.
  const std::vector<WeightSlice>* slices = nullptr;
  DType stored = DType::kBF16;  // of the matrices, where bindings do not say
  bool fp32 = false;
  ServingLimits limits = {};
  uint64_t memory_bytes = 0;  // what the rank may use in all
};

// The least memory_bytes with which PlanMemory() succeeds.
uint64_t LeastBytes(const MemoryRequest& request);

// What is left beside weights, states, workspaces and exchange buffers goes, in this order, to
//  * snapshots, in models with states: one for each of max_sequences, at most a quarter of it;
//  * blocks of layers with a window: what max_sequences windows and the chunks of all steps in
//    flight take, as far as half of the rest holds them, then as many again for cached prefixes, as
//    long as each may have a block of the other layers beside it;
//  * blocks of the other layers.
// Of either kind at most what max_sequences sequences of max_context_tokens need, and none in a
// model without such layers. A rank without layers of a kind has as many as it could have at most.
//
// InvalidArgument for limits of 0; ResourceExhausted with one sentence and the missing bytes when
// not even one sequence of max_context_tokens fits.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request);

// Gives the rank `capacity` instead, which is not more than `plan` has.
void LimitTo(const KvCapacity& capacity, const RankLayout& layout, const ModelSpec& spec,
             MemoryPlan& plan);

}  // namespace essor::model
