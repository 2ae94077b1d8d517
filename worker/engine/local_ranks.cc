#include "worker/engine/local_ranks.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "kernels/cpu/cpu_stream.h"
#include "model/plan/weight_slices.h"
#include "model/source/model_source.h"
#include "worker/engine/cpu_share.h"
#include "worker/engine/engine.h"
#include "worker/engine/group_step.h"
#include "worker/engine/rank_thread.h"

namespace essor::worker {
namespace {

struct HeldWeights {
  std::string key;
  std::unique_ptr<model::ModelSource> source;
  std::map<uint32_t, model::RankLayout> layouts;  // by global rank
  std::map<uint32_t, std::unique_ptr<const RankWeights>> weights;
};

// A step on all local ranks: the last one to finish reports.
struct StepInFlight {
  std::shared_ptr<const StepInput> input;
  std::vector<bool> with_logprobs;  // see MergeOutputs
  uint32_t remaining = 0;
  std::vector<StepOutput> outputs = {};  // of the ranks done; only answering ones say anything
  absl::Status failure = {};             // of failed_rank
  uint32_t failed_rank = 0;
};

void KeepTimeOnly(StepOutput& output) {
  output = {.step_id = output.step_id,
            .sampled = {},
            .logprobs = {},
            .scored = {},
            .compute_time = output.compute_time};
}

class LocalRanksOnCpu : public LocalRanks {
 public:
  LocalRanksOnCpu(const Options& options, DataPlane* data_plane)
      : options_(options), data_plane_(data_plane) {}
  ~LocalRanksOnCpu() override { Release(); }

  absl::StatusOr<LoadReport> Load(const Assignment& assignment, const Progress& progress) override;
  absl::Status Connect(const EpochMembers& members, absl::Time deadline,
                       StepDone on_step_done) override;
  absl::Status Submit(const StepInput& step) override;
  void Cancel(uint64_t epoch, const std::string& reason) override;
  void Release() override;
  std::string held_weights() const override {
    absl::MutexLock lock(&mutex_);
    return held_key_;
  }

 private:
  absl::Status LoadAll(const Progress& progress);
  absl::Status LoadRank(uint32_t rank, const Progress& progress);
  absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const EpochMembers& members, uint32_t rank,
                                                     const CpuShare& share, absl::Time deadline);
  std::vector<CpuShare> Shares() const;
  void OnRankDone(uint32_t rank, absl::StatusOr<StepOutput> output);
  // Whether the rank tells what its data-parallel group sampled: the first of the last stage.
  bool Answers(uint32_t rank) const {
    const model::RankLayout& layout = held_.layouts.at(rank);
    return layout.last_stage && layout.group_index == 0;
  }
  absl::Status CheckNotCancelled() const;

  const Options options_;
  DataPlane* const data_plane_;

  // Of the control thread.
  Assignment assignment_;
  HeldWeights held_;
  std::atomic<bool> loading_cancelled_{false};
  std::atomic<uint64_t> cancelled_epoch_{0};

  mutable absl::Mutex mutex_;
  std::string held_key_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<RankThread>> threads_ ABSL_GUARDED_BY(mutex_);
  size_t steps_max_ ABSL_GUARDED_BY(mutex_) = 0;
  StepDone on_step_done_ ABSL_GUARDED_BY(mutex_);
  bool step_failed_ ABSL_GUARDED_BY(mutex_) = false;  // of this epoch, which is over therefore
  std::map<StepId, StepInFlight> in_flight_ ABSL_GUARDED_BY(mutex_);
  LogprobSlots logprob_slots_ ABSL_GUARDED_BY(mutex_);
};

absl::Status LocalRanksOnCpu::CheckNotCancelled() const {
  if (cancelled_epoch_.load() < assignment_.epoch) return absl::OkStatus();
  return absl::CancelledError(absl::StrFormat("epoch %d was given up", assignment_.epoch));
}

absl::StatusOr<LoadReport> LocalRanksOnCpu::Load(const Assignment& assignment,
                                                 const Progress& progress) {
  Release();
  assignment_ = assignment;
  loading_cancelled_.store(false);
  ESSOR_RETURN_IF_ERROR(CheckNotCancelled());
  LoadReport report;
  report.kept = !assignment.weights_key.empty() && held_.key == assignment.weights_key;
  if (!report.kept) ESSOR_RETURN_IF_ERROR(LoadAll(progress));
  for (const auto& [rank, weights] : held_.weights) {
    report.weight_bytes += weights->storage.size();
    report.kv_bytes += Engine::KvBytes(held_.source->spec, held_.layouts.at(rank),
                                       assignment.limits, assignment.capacity);
  }
  return report;
}

absl::Status LocalRanksOnCpu::LoadAll(const Progress& progress) {
  {
    absl::MutexLock lock(&mutex_);
    held_key_.clear();
  }
  held_ = HeldWeights();
  ESSOR_ASSIGN_OR_RETURN(
      held_.source, model::ModelSource::Open(assignment_.model_path, assignment_.draft_layers));
  if (held_.source->fingerprint != assignment_.model_fingerprint) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "model_fingerprint: %s at %s here, %s at the coordinator; the model files differ",
        held_.source->fingerprint, assignment_.model_path, assignment_.model_fingerprint));
  }
  ESSOR_RETURN_IF_ERROR(model::ValidatePlan(assignment_.plan, held_.source->spec,
                                            model::QuantBlockOf(held_.source->bindings)));
  for (const uint32_t rank : assignment_.local_ranks) {
    ESSOR_RETURN_IF_ERROR(LoadRank(rank, progress));
  }
  held_.key = assignment_.weights_key;
  absl::MutexLock lock(&mutex_);
  held_key_ = held_.key;
  return absl::OkStatus();
}

absl::Status LocalRanksOnCpu::LoadRank(uint32_t rank, const Progress& progress) {
  const model::ModelSource& source = *held_.source;
  if (rank >= assignment_.plan.NumRanks()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rank %d is not one of the plan's %d", rank, assignment_.plan.NumRanks()));
  }
  model::RankLayout layout =
      model::LayoutOf(assignment_.plan, source.spec, rank, model::QuantBlockOf(source.bindings));
  const std::vector<model::WeightSlice> slices =
      model::SlicesOf(layout, source.spec, source.bindings);
  uint32_t num_threads = 0;
  for (const CpuShare& share : Shares()) num_threads += share.num_threads;
  LoadRequest request{.checkpoint = source.checkpoint.get(),
                      .layout = &layout,
                      .slices = &slices,
                      .precision = assignment_.precision,
                      .num_threads = num_threads,
                      .cancelled = &loading_cancelled_};
  if (progress) {
    request.progress = [&progress, rank](uint64_t done, uint64_t total) {
      progress(rank, done, total);
    };
  }
  const absl::Time start = Clock::Steady().Now();
  ESSOR_ASSIGN_OR_RETURN(held_.weights[rank], LoadRankWeights(request));
  const double seconds = absl::ToDoubleSeconds(Clock::Steady().Now() - start);
  spdlog::info("weights loaded epoch={} rank={} bytes={} seconds={:.2f}", assignment_.epoch, rank,
               held_.weights[rank]->storage.size(), seconds);
  held_.layouts[rank] = std::move(layout);
  return absl::OkStatus();
}

std::vector<CpuShare> LocalRanksOnCpu::Shares() const {
  return DivideCpus({.cpus = AllowedCpus(),
                     .threads_wanted = options_.num_threads,
                     .local_index = assignment_.local_index,
                     .local_count = assignment_.local_count,
                     .num_ranks = static_cast<uint32_t>(assignment_.local_ranks.size())});
}

absl::StatusOr<std::unique_ptr<Engine>> LocalRanksOnCpu::MakeEngine(const EpochMembers& members,
                                                                    uint32_t rank,
                                                                    const CpuShare& share,
                                                                    absl::Time deadline) {
  const model::ModelSpec& spec = held_.source->spec;
  const model::RankLayout& layout = held_.layouts.at(rank);
  std::vector<model::Range> vocab_slices;
  for (const uint32_t member : layout.group_ranks) {
    vocab_slices.push_back(
        model::LayoutOf(assignment_.plan, spec, member, model::QuantBlockOf(held_.source->bindings))
            .vocab);
  }
  ESSOR_ASSIGN_OR_RETURN(
      auto communicators,
      data_plane_->Connect(members, rank, GroupsOf(layout, assignment_.plan),
                           Engine::MaxExchangeBytes(spec, layout, assignment_.limits, vocab_slices),
                           deadline));
  return Engine::Create({.spec = &spec,
                         .plan = &assignment_.plan,
                         .layout = layout,
                         .vocab_slices = std::move(vocab_slices),
                         .weights = held_.weights.at(rank).get(),
                         .limits = assignment_.limits,
                         .capacity = assignment_.capacity,
                         .stream = kernels::CpuStream::Create(
                             {.threads = {.num_threads = share.num_threads, .cpus = share.cpus}}),
                         .communicators = std::move(communicators),
                         .clock = &Clock::Steady()});
}

absl::Status LocalRanksOnCpu::Connect(const EpochMembers& members, absl::Time deadline,
                                      StepDone on_step_done) {
  ESSOR_RETURN_IF_ERROR(CheckNotCancelled());
  if (held_.key != assignment_.weights_key || held_.source == nullptr) {
    return absl::FailedPreconditionError("connect: the weights are not loaded");
  }
  const std::vector<CpuShare> shares = Shares();
  std::vector<std::unique_ptr<RankThread>> threads;
  for (size_t i = 0; i < assignment_.local_ranks.size(); ++i) {
    const uint32_t rank = assignment_.local_ranks[i];
    threads.push_back(std::make_unique<RankThread>(
        assignment_.plan.StepsInFlightMax(),
        [this, &members, rank, share = shares[i], deadline] {
          return MakeEngine(members, rank, share, deadline);
        },
        [this, rank](absl::StatusOr<StepOutput> output) { OnRankDone(rank, std::move(output)); }));
  }
  absl::Status status;
  for (const auto& thread : threads) status.Update(thread->WaitReady());
  if (!status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  threads_ = std::move(threads);
  steps_max_ = assignment_.plan.StepsInFlightMax();
  step_failed_ = false;
  logprob_slots_ = LogprobSlots(size_t{assignment_.plan.dp} * assignment_.limits.max_sequences);
  on_step_done_ = std::move(on_step_done);
  return absl::OkStatus();
}

absl::Status LocalRanksOnCpu::Submit(const StepInput& step) {
  absl::MutexLock lock(&mutex_);
  if (threads_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("step %d: the ranks are not connected", step.step_id.value()));
  }
  if (step_failed_) return absl::OkStatus();  // was reported; ranks may still wait in older steps
  if (in_flight_.contains(step.step_id)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("step %d is in flight already", step.step_id.value()));
  }
  if (in_flight_.size() >= steps_max_) {
    return absl::ResourceExhaustedError(absl::StrFormat("step %d: %d steps are in flight",
                                                        step.step_id.value(), in_flight_.size()));
  }
  const auto shared = std::make_shared<const StepInput>(step);
  in_flight_[step.step_id] = {.input = shared,
                              .with_logprobs = logprob_slots_.Of(step),
                              .remaining = static_cast<uint32_t>(threads_.size())};
  for (const auto& thread : threads_) ESSOR_CHECK(thread->TrySubmit(shared));
  return absl::OkStatus();
}

void LocalRanksOnCpu::OnRankDone(uint32_t rank, absl::StatusOr<StepOutput> output) {
  StepDone done;
  StepInFlight step;
  {
    absl::MutexLock lock(&mutex_);
    if (in_flight_.empty()) return;
    // A failed rank does not say which step it failed in: it is the oldest one.
    const auto found = output.ok() ? in_flight_.find(output->step_id) : in_flight_.begin();
    if (found == in_flight_.end()) return;
    StepInFlight& state = found->second;
    if (!output.ok()) {
      step_failed_ = true;
      state.failure = output.status();
      state.failed_rank = rank;
      state.remaining = 1;  // report at once: the other ranks may wait for the failed one
    } else {
      state.outputs.push_back(*std::move(output));
      if (!Answers(rank)) KeepTimeOnly(state.outputs.back());
    }
    if (--state.remaining > 0) return;
    step = std::move(state);
    in_flight_.erase(found);
    done = on_step_done_;
  }
  if (!done) return;
  if (!step.failure.ok()) {
    done(step.failure, step.failed_rank);
    return;
  }
  done(MergeOutputs(*step.input, step.with_logprobs, std::move(step.outputs)), 0);
}

void LocalRanksOnCpu::Cancel(uint64_t epoch, const std::string& reason) {
  uint64_t seen = cancelled_epoch_.load();
  while (seen < epoch && !cancelled_epoch_.compare_exchange_weak(seen, epoch)) {
  }
  loading_cancelled_.store(true);
  data_plane_->Abort(epoch, reason);
}

void LocalRanksOnCpu::Release() {
  std::vector<std::unique_ptr<RankThread>> threads;
  {
    absl::MutexLock lock(&mutex_);
    threads = std::move(threads_);
    threads_.clear();
    in_flight_.clear();
    on_step_done_ = nullptr;
  }
  if (!threads.empty()) data_plane_->Abort(assignment_.epoch, "the epoch was released");
  threads.clear();  // joins
}

}  // namespace

std::unique_ptr<LocalRanks> LocalRanks::Create(const Options& options, DataPlane* data_plane) {
  return std::make_unique<LocalRanksOnCpu>(options, data_plane);
}

}  // namespace essor::worker
