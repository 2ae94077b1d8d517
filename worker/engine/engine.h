// Runs the steps of one rank: batch -> layers -> sampler.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "kernels/stream.h"
#include "model/plan/kv_kinds.h"
#include "model/plan/memory_plan.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/engine/group_step.h"
#include "worker/engine/kv_memory.h"
#include "worker/engine/output_head.h"
#include "worker/engine/sequence_slots.h"
#include "worker/engine/step.h"
#include "worker/engine/token_history.h"
#include "worker/engine/token_return.h"
#include "worker/layers/layer.h"
#include "worker/loader/rank_weights.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// The groups a rank needs, in the order the engine expects its communicators: tensor-parallel
// group, data-parallel group, pipeline, and with several data-parallel groups the stage.
std::vector<GroupSpec> GroupsOf(const model::RankLayout& layout, const model::ParallelPlan& plan);

// One rank of one epoch. Created and used by its owner thread; the ranks of an instance run the
// same steps in the same order. All device memory is taken in Create; Run allocates none.
class Engine {
 public:
  struct Inputs {
    const model::ModelSpec* spec;
    const model::ParallelPlan* plan;
    model::RankLayout layout;
    std::vector<model::Range> vocab_slices;  // of the ranks of the group, in order
    const RankWeights* weights;              // borrowed, must outlive the engine
    model::ServingLimits limits;
    model::KvCapacity capacity;
    std::unique_ptr<kernels::Stream> stream;
    std::vector<std::unique_ptr<Communicator>> communicators;  // one per GroupsOf()
    const Clock* clock;
  };

  // ResourceExhausted when KV cache or workspaces cannot be allocated.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(Inputs inputs);

  // One step. On the first of several stages it returns when the rows have been sent on, and the
  // sampled tokens are awaited when a later step needs them. InvalidArgument when the step
  // contradicts this rank's state, Unavailable or DeadlineExceeded from the exchanges; after any
  // error the epoch is over and Run must not be called again. Only ranks of the last stage fill
  // `sampled` and `scored`, for the sequences of their data-parallel group. A rank without rows of
  // its own serves the other groups' experts.
  absl::StatusOr<StepOutput> Run(const StepInput& input);

  // The largest single exchange of a step in bytes (for DataPlane::Connect).
  static uint64_t MaxExchangeBytes(const model::ModelSpec& spec, const model::RankLayout& layout,
                                   const model::ServingLimits& limits,
                                   const std::vector<model::Range>& vocab_slices);
  // Of the rank's KV cache, states and snapshots, as Create allocates them.
  static uint64_t KvBytes(const model::ModelSpec& spec, const model::RankLayout& layout,
                          const model::ServingLimits& limits, const model::KvCapacity& capacity);
  // Of what a step works on, likewise.
  static uint64_t WorkspaceBytes(const model::ModelSpec& spec, const model::RankLayout& layout,
                                 const model::ServingLimits& limits,
                                 const std::vector<model::Range>& vocab_slices);

 private:
  struct Buffers {
    float* residual = nullptr;  // [T, hidden]
    float* normed = nullptr;    // [T, hidden]
    float* delta = nullptr;     // [T, hidden], output of the last sub-layer
  };

  // What a step works on, and who works on it.
  struct Workspace {
    Buffers buffers;
    LayerScratch scratch;
    std::vector<RopeTable> rope;            // per layer
    std::unique_ptr<OutputHead> head;       // of the last stage
    std::unique_ptr<TokenHistory> history;  // likewise
  };

  Engine(Inputs inputs, Arena arena, KvMemory kv);
  // Every piece, in one order: run once to measure and once to take. Borrows `inputs`, whose
  // communicators, weights and stream are used by steps only.
  static Workspace TakeWorkspace(Arena& arena, const Inputs& inputs);
  static Buffers TakeBuffers(Arena& arena, const Inputs& inputs);
  static std::vector<RopeTable> TakeRopeTables(Arena& arena, const Inputs& inputs);
  void BuildLayers();

  // The part of a step that is this rank's data-parallel group's; group_rows as in Batch.
  absl::StatusOr<StepOutput> RunOwn(const StepInput& input, std::span<const uint32_t> group_rows);
  absl::Status ServeOtherGroups(const Batch& batch);
  StepGroups Groups() const;
  Batch BatchOf(std::span<const uint32_t> group_rows) const;
  // What the step does to blocks and states before its rows, and after them.
  void CopyAndRestore(const StepInput& input);
  void SaveStates(const StepInput& input);
  absl::Status Begin(const Batch& batch);
  absl::Status RunLayers(const Batch& batch);
  absl::Status Finish(const StepInput& input, StepOutput* output);
  absl::Status RunHead(const StepInput& input, StepOutput* output);
  std::vector<HeadRow> HeadRowsOf(const StepInput& input) const;
  void SampleInto(const StepInput::Sequence& sequence, const kernels::SequenceRows& place,
                  HeadRow* row) const;
  static void Collect(const StepInput& input, const std::vector<HeadRow>& rows,
                      std::vector<HeadResult> results, StepOutput* output);
  absl::Status HandOnSampled(const StepInput& input, const StepOutput& output);
  void RecordSampled(const StepInput& input, const std::vector<TokenId>& tokens);

  Inputs inputs_;
  Communicator* tp_ = nullptr;
  Communicator* group_ = nullptr;     // the ranks that hold the same tokens
  Communicator* pipeline_ = nullptr;  // member i = the rank of stage i
  Communicator* stage_ = nullptr;     // all ranks of the stage; null where they are one group
  Arena arena_;
  KvMemory kv_;
  Workspace workspace_;  // out of arena_
  // Attention or FFN of a layer, with its norms.
  struct HalfLayer {
    const float* norm;
    const float* post_norm;  // null where the family has none
    std::optional<model::ScaledResidual> residual;
    std::unique_ptr<SubLayer> layer;
  };
  std::vector<HalfLayer> layers_;
  SequenceSlots slots_;
  StepRows rows_;
  std::optional<TokenReturn> awaited_;  // on the first of several stages
};

}  // namespace essor::worker
