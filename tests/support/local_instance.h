// A whole instance in one process, without coordinator and gRPC: every worker has its own data
// plane, as it would on a cluster.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/ids.h"
#include "model/source/model_source.h"
#include "worker/engine/group_step.h"
#include "worker/engine/local_ranks.h"
#include "worker/engine/step.h"
#include "worker/parallel/communicator.h"

namespace essor::testing {

class LocalInstance {
 public:
  struct Options {
    std::string model_path;
    std::string plan = "tp=1";
    worker::Precision precision = worker::Precision::kStored;
    model::ServingLimits limits = {
        .block_tokens = 8, .max_step_tokens = 512, .max_sequences = 8, .max_context_tokens = 512};
    std::optional<KvType> kv_type = {};  // none: float32 where all is computed so, else bfloat16
    uint32_t num_blocks = 512;           // of either kind
    uint32_t num_snapshots = 0;
    uint32_t threads_per_rank = 1;
    uint32_t ranks_per_worker = 1;
    bool allow_shared_memory = true;
    model::DraftLayers draft_layers = model::DraftLayers::kSkip;
  };
  static absl::StatusOr<std::unique_ptr<LocalInstance>> Create(const Options& options);
  ~LocalInstance();

  // Runs one step on all ranks and returns what the answering ranks say, in the step's order.
  absl::StatusOr<worker::StepOutput> Run(const worker::StepInput& input);
  // The two halves of Run: steps may be submitted before those before them are done, as many as the
  // plan allows in flight. Each one's output is awaited once.
  absl::StatusOr<StepId> Submit(const worker::StepInput& input);
  absl::StatusOr<worker::StepOutput> Await(StepId step);

  // [tokens, vocabulary] logits of a whole prompt in chunks of at most `chunk` tokens.
  // `slot`: which one it takes; blocks are those from 0 on.
  absl::StatusOr<std::vector<float>> Logits(const std::vector<TokenId>& tokens, uint32_t chunk,
                                            uint32_t slot = 0);
  // `count` tokens after `prompt`.
  absl::StatusOr<std::vector<TokenId>> Generate(const std::vector<TokenId>& prompt, uint32_t count,
                                                const worker::SequenceSampling& sampling,
                                                uint32_t slot = 0);

  const model::ModelSpec& spec() const { return source_->spec; }
  // Kinds of blocks and states that the instance keeps.
  const model::KvKinds& kinds() const { return kinds_; }
  // Gives `blocks` to a sequence for the kinds of layers that the model has, the same numbers in
  // each: those are of different blocks.
  void AddBlocks(const std::vector<uint32_t>& blocks, worker::StepInput::Sequence* sequence) const;
  // Packed weights of each rank, as its worker reports them.
  const std::vector<uint64_t>& weight_bytes() const { return weight_bytes_; }

 private:
  struct Worker {
    std::unique_ptr<worker::DataPlane> data_plane;
    std::unique_ptr<worker::LocalRanks> ranks;
  };
  struct Collected {
    worker::StepInput input = {};
    std::vector<bool> with_logprobs = {};          // see worker::MergeOutputs
    uint32_t remaining = 0;                        // workers that have not said it is done
    std::vector<worker::StepOutput> outputs = {};  // of those that have
  };

  absl::Status Form(const Options& options);
  absl::Status ConnectAll(const worker::EpochMembers& members);
  void OnDone(absl::StatusOr<worker::StepOutput> output);
  // The blocks that hold tokens first .. first + count - 1 and were not given out before.
  std::vector<uint32_t> NewBlocks(uint32_t first, uint32_t count) const;

  uint32_t block_tokens_ = 0;
  model::KvKinds kinds_;
  std::unique_ptr<model::ModelSource> source_;
  std::vector<Worker> workers_;
  std::vector<uint64_t> weight_bytes_;
  uint64_t next_step_ = 1;
  worker::LogprobSlots logprob_slots_;
  absl::Mutex mutex_;
  std::map<StepId, Collected> collected_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // of any step: the epoch is over then
};

}  // namespace essor::testing
