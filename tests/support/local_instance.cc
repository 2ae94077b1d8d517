#include "tests/support/local_instance.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "common/clock.h"
#include "common/status_macros.h"

namespace essor::testing {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr uint64_t kEpoch = 1;

}  // namespace

absl::StatusOr<std::unique_ptr<LocalInstance>> LocalInstance::Create(const Options& options) {
  auto instance = std::make_unique<LocalInstance>();
  ESSOR_RETURN_IF_ERROR(instance->Form(options));
  return instance;
}

LocalInstance::~LocalInstance() {
  for (Worker& worker : workers_) worker.ranks->Cancel(kEpoch, "the test is over");
  // Joins the ranks' threads, which may still report steps.
  for (Worker& worker : workers_) worker.ranks->Release();
}

absl::Status LocalInstance::Form(const Options& options) {
  block_tokens_ = options.limits.block_tokens;
  ESSOR_ASSIGN_OR_RETURN(source_,
                         model::ModelSource::Open(options.model_path, options.draft_layers));
  kinds_ = model::KvKindsOf(source_->spec, options.limits.max_context_tokens);
  ESSOR_ASSIGN_OR_RETURN(const auto plan, model::ParallelPlan::Parse(options.plan));
  ESSOR_RETURN_IF_ERROR(model::ValidatePlan(plan, source_->spec));
  worker::EpochMembers members{.epoch = kEpoch, .ranks = {}};
  logprob_slots_ = worker::LogprobSlots(size_t{plan.dp} * options.limits.max_sequences);
  const uint32_t per_worker = std::max(options.ranks_per_worker, 1u);
  const uint32_t num_workers = (plan.NumRanks() + per_worker - 1) / per_worker;
  for (uint32_t index = 0; index < num_workers; ++index) {
    Worker worker;
    std::vector<uint32_t> local_ranks;
    for (uint32_t i = 0; i < per_worker && index * per_worker + i < plan.NumRanks(); ++i) {
      local_ranks.push_back(index * per_worker + i);
    }
    ESSOR_ASSIGN_OR_RETURN(
        worker.data_plane,
        worker::DataPlane::Create({.allow_shared_memory = options.allow_shared_memory}));
    const auto num_ranks = static_cast<uint32_t>(local_ranks.size());
    worker.ranks = worker::LocalRanks::Create({.num_threads = options.threads_per_rank * num_ranks},
                                              worker.data_plane.get());
    worker::Assignment assignment{.epoch = kEpoch,
                                  .model_path = options.model_path,
                                  .model_fingerprint = source_->fingerprint,
                                  .plan = plan,
                                  .local_ranks = std::move(local_ranks),
                                  .limits = options.limits,
                                  .capacity = {.num_blocks = options.num_blocks,
                                               .num_window_blocks = options.num_blocks,
                                               .num_snapshots = options.num_snapshots},
                                  .weights_key = options.plan,
                                  .local_index = index,
                                  .local_count = num_workers,
                                  .precision = options.precision,
                                  .draft_layers = options.draft_layers};
    const bool float32 =
        options.precision == worker::Precision::kFloat32 ||
        (options.precision == worker::Precision::kStored && source_->stored == DType::kF32);
    assignment.limits.kv_type =
        options.kv_type.value_or(float32 ? KvType::kFloat32 : KvType::kBFloat16);
    ESSOR_ASSIGN_OR_RETURN(const worker::LoadReport report,
                           worker.ranks->Load(assignment, nullptr));
    weight_bytes_.push_back(report.weight_bytes);
    members.ranks.insert(members.ranks.end(), num_ranks,
                         {.worker_id = index + 1, .endpoint = worker.data_plane->endpoint()});
    workers_.push_back(std::move(worker));
  }
  return ConnectAll(members);
}

absl::Status LocalInstance::ConnectAll(const worker::EpochMembers& members) {
  std::vector<absl::Status> statuses(workers_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < workers_.size(); ++i) {
    threads.emplace_back([this, &members, &statuses, i] {
      statuses[i] = workers_[i].ranks->Connect(members, Clock::Steady().Now() + kTimeout,
                                               [this](absl::StatusOr<worker::StepOutput> output,
                                                      uint32_t) { OnDone(std::move(output)); });
    });
  }
  for (std::thread& thread : threads) thread.join();
  absl::Status status;
  for (const absl::Status& one : statuses) status.Update(one);
  return status;
}

void LocalInstance::OnDone(absl::StatusOr<worker::StepOutput> output) {
  absl::MutexLock lock(&mutex_);
  if (!output.ok()) {
    failure_.Update(output.status());
    return;
  }
  const auto found = collected_.find(output->step_id);
  if (found == collected_.end()) return;
  --found->second.remaining;
  found->second.outputs.push_back(*std::move(output));
}

absl::StatusOr<StepId> LocalInstance::Submit(const worker::StepInput& input) {
  worker::StepInput step = input;
  step.step_id = StepId(next_step_++);
  step.deadline = Clock::Steady().Now() + kTimeout;
  {
    absl::MutexLock lock(&mutex_);
    collected_[step.step_id] = {.input = step,
                                .with_logprobs = logprob_slots_.Of(step),
                                .remaining = static_cast<uint32_t>(workers_.size())};
  }
  for (Worker& worker : workers_) ESSOR_RETURN_IF_ERROR(worker.ranks->Submit(step));
  return step.step_id;
}

absl::StatusOr<worker::StepOutput> LocalInstance::Await(StepId step) {
  absl::MutexLock lock(&mutex_);
  const auto done = [this, step]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return collected_[step].remaining == 0 || !failure_.ok();
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&done), kTimeout)) {
    return absl::DeadlineExceededError("the step did not finish");
  }
  if (!failure_.ok()) return failure_;
  const Collected whole = std::move(collected_[step]);
  collected_.erase(step);
  return worker::MergeOutputs(whole.input, whole.with_logprobs, whole.outputs);
}

absl::StatusOr<worker::StepOutput> LocalInstance::Run(const worker::StepInput& input) {
  ESSOR_ASSIGN_OR_RETURN(const StepId step, Submit(input));
  return Await(step);
}

void LocalInstance::AddBlocks(const std::vector<uint32_t>& blocks,
                              worker::StepInput::Sequence* sequence) const {
  if (kinds_.full) sequence->new_blocks = blocks;
  if (kinds_.window_tokens > 0) sequence->new_window_blocks = blocks;
}

std::vector<uint32_t> LocalInstance::NewBlocks(uint32_t first, uint32_t count) const {
  std::vector<uint32_t> blocks;
  const uint32_t held = (first + block_tokens_ - 1) / block_tokens_;
  const uint32_t needed = (first + count + block_tokens_ - 1) / block_tokens_;
  for (uint32_t block = held; block < needed; ++block) blocks.push_back(block);
  return blocks;
}

absl::StatusOr<std::vector<float>> LocalInstance::Logits(const std::vector<TokenId>& tokens,
                                                         uint32_t chunk, uint32_t slot) {
  std::vector<float> logits;
  for (uint32_t first = 0; first < tokens.size(); first += chunk) {
    const auto count = std::min(chunk, static_cast<uint32_t>(tokens.size()) - first);
    worker::StepInput step;
    if (first == 0) step.starts.push_back({.slot = slot, .sampling = {}});
    step.sequences.push_back({.slot = slot,
                              .tokens = {tokens.begin() + first, tokens.begin() + first + count},
                              .sample = false,
                              .return_logits = true});
    AddBlocks(NewBlocks(first, count), &step.sequences.back());
    ESSOR_ASSIGN_OR_RETURN(const worker::StepOutput output, Run(step));
    if (output.scored.size() != 1) return absl::InternalError("no logits came back");
    logits.insert(logits.end(), output.scored[0].logits.begin(), output.scored[0].logits.end());
  }
  worker::StepInput release;
  release.release_slots = {slot};
  ESSOR_RETURN_IF_ERROR(Run(release).status());
  return logits;
}

absl::StatusOr<std::vector<TokenId>> LocalInstance::Generate(
    const std::vector<TokenId>& prompt, uint32_t count, const worker::SequenceSampling& sampling,
    uint32_t slot) {
  std::vector<TokenId> tokens;
  uint32_t context = 0;
  for (uint32_t i = 0; i < count; ++i) {
    worker::StepInput step;
    if (i == 0) step.starts.push_back({.slot = slot, .sampling = sampling});
    const auto rows = i == 0 ? static_cast<uint32_t>(prompt.size()) : 1u;
    step.sequences.push_back({.slot = slot, .tokens = i == 0 ? prompt : std::vector<TokenId>()});
    AddBlocks(NewBlocks(context, rows), &step.sequences.back());
    context += rows;
    ESSOR_ASSIGN_OR_RETURN(const worker::StepOutput output, Run(step));
    if (output.sampled.size() != 1) return absl::InternalError("no token came back");
    tokens.push_back(output.sampled[0].token);
  }
  worker::StepInput release;
  release.release_slots = {slot};
  ESSOR_RETURN_IF_ERROR(Run(release).status());
  return tokens;
}

}  // namespace essor::testing
