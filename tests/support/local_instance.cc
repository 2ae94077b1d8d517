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
}

absl::Status LocalInstance::Form(const Options& options) {
  block_tokens_ = options.limits.block_tokens;
  ESSOR_ASSIGN_OR_RETURN(source_,
                         model::ModelSource::Open(options.model_path, options.draft_layers));
  ESSOR_ASSIGN_OR_RETURN(const auto plan, model::ParallelPlan::Parse(options.plan));
  ESSOR_RETURN_IF_ERROR(model::ValidatePlan(plan, source_->spec));
  worker::EpochMembers members{.epoch = kEpoch, .ranks = {}};
  for (uint32_t rank = 0; rank < plan.NumRanks(); ++rank) {
    Worker worker;
    ESSOR_ASSIGN_OR_RETURN(
        worker.data_plane,
        worker::DataPlane::Create({.allow_shared_memory = options.allow_shared_memory}));
    worker.ranks = worker::LocalRanks::Create({.num_threads = options.threads_per_rank},
                                              worker.data_plane.get());
    worker::Assignment assignment{.epoch = kEpoch,
                                  .model_path = options.model_path,
                                  .model_fingerprint = source_->fingerprint,
                                  .plan = plan,
                                  .local_ranks = {rank},
                                  .limits = options.limits,
                                  .capacity = {.num_blocks = options.num_blocks},
                                  .weights_key = options.plan,
                                  .local_index = rank,
                                  .local_count = plan.NumRanks(),
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
    members.ranks.push_back({.worker_id = rank + 1, .endpoint = worker.data_plane->endpoint()});
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
  const bool answers = output.ok() && (!output->sampled.empty() || !output->scored.empty());
  if (!output.ok() || (collected_.output.ok() && answers)) collected_.output = std::move(output);
  --collected_.remaining;
}

absl::StatusOr<worker::StepOutput> LocalInstance::Run(const worker::StepInput& input) {
  worker::StepInput step = input;
  step.step_id = StepId(next_step_++);
  step.deadline = Clock::Steady().Now() + kTimeout;
  {
    absl::MutexLock lock(&mutex_);
    collected_ = {.remaining = static_cast<uint32_t>(workers_.size())};
  }
  for (Worker& worker : workers_) ESSOR_RETURN_IF_ERROR(worker.ranks->Submit(step));
  absl::MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return collected_.remaining == 0 || !collected_.output.ok();
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&done), kTimeout)) {
    return absl::DeadlineExceededError("the step did not finish");
  }
  return std::move(collected_.output);
}

std::vector<uint32_t> LocalInstance::NewBlocks(uint32_t first, uint32_t count) const {
  std::vector<uint32_t> blocks;
  const uint32_t held = (first + block_tokens_ - 1) / block_tokens_;
  const uint32_t needed = (first + count + block_tokens_ - 1) / block_tokens_;
  for (uint32_t block = held; block < needed; ++block) blocks.push_back(block);
  return blocks;
}

absl::StatusOr<std::vector<float>> LocalInstance::Logits(const std::vector<TokenId>& tokens,
                                                         uint32_t chunk) {
  std::vector<float> logits;
  for (uint32_t first = 0; first < tokens.size(); first += chunk) {
    const auto count = std::min(chunk, static_cast<uint32_t>(tokens.size()) - first);
    worker::StepInput step;
    if (first == 0) step.starts.push_back({.slot = 0, .sampling = {}});
    step.sequences.push_back({.slot = 0,
                              .tokens = {tokens.begin() + first, tokens.begin() + first + count},
                              .new_blocks = NewBlocks(first, count),
                              .sample = false,
                              .return_logits = true});
    ESSOR_ASSIGN_OR_RETURN(const worker::StepOutput output, Run(step));
    if (output.scored.size() != 1) return absl::InternalError("no logits came back");
    logits.insert(logits.end(), output.scored[0].logits.begin(), output.scored[0].logits.end());
  }
  worker::StepInput release;
  release.release_slots = {0};
  ESSOR_RETURN_IF_ERROR(Run(release).status());
  return logits;
}

absl::StatusOr<std::vector<TokenId>> LocalInstance::Generate(
    const std::vector<TokenId>& prompt, uint32_t count, const worker::SequenceSampling& sampling) {
  std::vector<TokenId> tokens;
  uint32_t context = 0;
  for (uint32_t i = 0; i < count; ++i) {
    worker::StepInput step;
    if (i == 0) step.starts.push_back({.slot = 0, .sampling = sampling});
    const auto rows = i == 0 ? static_cast<uint32_t>(prompt.size()) : 1u;
    step.sequences.push_back({.slot = 0,
                              .tokens = i == 0 ? prompt : std::vector<TokenId>(),
                              .new_blocks = NewBlocks(context, rows)});
    context += rows;
    ESSOR_ASSIGN_OR_RETURN(const worker::StepOutput output, Run(step));
    if (output.sampled.size() != 1) return absl::InternalError("no token came back");
    tokens.push_back(output.sampled[0].token);
  }
  worker::StepInput release;
  release.release_slots = {0};
  ESSOR_RETURN_IF_ERROR(Run(release).status());
  return tokens;
}

}  // namespace essor::testing
