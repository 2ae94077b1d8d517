// The ranks that one worker process holds: their weights, and for the time of an epoch their
// engines, each on a thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/plan/kv_kinds.h"
#include "model/plan/memory_plan.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/engine/step.h"
#include "worker/loader/weight_loader.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// What the coordinator assigns for one epoch (proto: Assign).
struct Assignment {
  uint64_t epoch = 0;
  std::string model_path;
  std::string model_fingerprint;
  model::ParallelPlan plan;
  std::vector<uint32_t> local_ranks;  // global numbers, ascending
  model::ServingLimits limits;
  model::KvCapacity capacity;
  std::string weights_key;
  // Workers of one host share its cores: this one is index of count.
  uint32_t local_index = 0;
  uint32_t local_count = 1;
  Precision precision = Precision::kStored;
  model::DraftLayers draft_layers = model::DraftLayers::kSkip;
};

struct LoadReport {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  bool kept = false;  // the weights were there already
};

// Call order: Load, Connect, then Submit for every step, Release; then Load again. Load, Connect
// and Release come from one control thread; Submit from any one thread; Cancel from any thread.
class LocalRanks {
 public:
  struct Options {
    uint32_t num_threads = 0;  // of the whole worker; 0 = its share of the host's cores
  };
  using Progress = std::function<void(uint32_t rank, uint64_t bytes_done, uint64_t bytes_total)>;
  // Called once per submitted step, from a rank's thread, when all local ranks have run it.
  // `output` is that of the local ranks that answer, each for its data-parallel group, in the
  // step's order; empty lists where there is none.
  using StepDone = std::function<void(absl::StatusOr<StepOutput> output, uint32_t failed_rank)>;

  // `data_plane` is borrowed.
  static std::unique_ptr<LocalRanks> Create(const Options& options, DataPlane* data_plane);
  virtual ~LocalRanks() = default;

  // Opens the model and loads the slices of all local ranks, or keeps what is held when
  // `weights_key` is equal. FailedPrecondition when the model's fingerprint is another than the
  // coordinator's; errors of ModelSource::Open, ValidatePlan and LoadRankWeights. The line
  // "weights loaded" is logged once per load.
  virtual absl::StatusOr<LoadReport> Load(const Assignment& assignment,
                                          const Progress& progress) = 0;
  // Forms the exchanges and starts the ranks' threads; returns when all are ready for steps.
  virtual absl::Status Connect(const EpochMembers& members, absl::Time deadline,
                               StepDone on_step_done) = 0;
  // Queues a step for all local ranks, which run their steps in order. Up to
  // ParallelPlan::StepsInFlightMax() may be under way: a step may go on from tokens that an earlier
  // one samples. FailedPrecondition when the ranks are not connected, ResourceExhausted when more
  // steps are under way than may be, InvalidArgument when one of them has the same id. Steps after
  // a failed one are dropped: the epoch is over.
  virtual absl::Status Submit(const StepInput& step) = 0;
  // Makes a Load or Connect or step of `epoch` (or an older one) that is under way fail soon.
  virtual void Cancel(uint64_t epoch, const std::string& reason) = 0;
  // Ends the epoch: threads joined, engines and KV freed, weights kept.
  virtual void Release() = 0;
  // weights_key of what is held, empty for nothing.
  virtual std::string held_weights() const = 0;
};

}  // namespace essor::worker
