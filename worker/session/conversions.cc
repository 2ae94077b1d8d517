#include "worker/session/conversions.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/spec/families.h"

namespace essor::worker {
namespace {

// 0 on the wire is "off", which is 1.
float OneIfUnset(float value) { return value == 0 ? 1 : value; }

std::optional<uint32_t> OneLess(uint32_t value) {
  if (value == 0) return std::nullopt;
  return value - 1;
}

SequenceSampling FromProto(const v1::SequenceSampling& sampling) {
  SequenceSampling result{.temperature = sampling.temperature(),
                          .top_p = sampling.top_p(),
                          .top_k = sampling.top_k(),
                          .min_p = sampling.min_p(),
                          .seed = sampling.seed(),
                          .typical_p = OneIfUnset(sampling.typical_p()),
                          .repetition_penalty = OneIfUnset(sampling.repetition_penalty()),
                          .presence_penalty = sampling.presence_penalty(),
                          .frequency_penalty = sampling.frequency_penalty(),
                          .late_tokens = {sampling.late_ids().begin(), sampling.late_ids().end()},
                          .min_new_tokens = sampling.min_new_tokens(),
                          .logprobs = OneLess(sampling.logprobs())};
  const int num_biases = std::min(sampling.bias_ids_size(), sampling.biases_size());
  for (int i = 0; i < num_biases; ++i) {
    result.logit_bias.emplace_back(sampling.bias_ids(i), sampling.biases(i));
  }
  return result;
}

StepInput::Start FromProto(const v1::SequenceStart& start) {
  return {.slot = start.slot(),
          .sampling = FromProto(start.sampling()),
          .context_tokens = start.context_tokens(),
          .blocks = {start.blocks().begin(), start.blocks().end()},
          .first_window_block = start.first_window_block(),
          .window_blocks = {start.window_blocks().begin(), start.window_blocks().end()},
          .restore_snapshot = OneLess(start.restore_snapshot()),
          .prompt_tokens = start.prompt_tokens(),
          .seen_tokens = {start.seen_ids().begin(), start.seen_ids().end()}};
}

StepInput::Sequence FromProto(const v1::SequenceStep& step) {
  return {.slot = step.slot(),
          .tokens = {step.token_ids().begin(), step.token_ids().end()},
          .new_blocks = {step.new_blocks().begin(), step.new_blocks().end()},
          .sample = !step.hold(),
          .score = step.score(),
          .score_targets = {step.score_targets().begin(), step.score_targets().end()},
          .return_logits = step.return_logits(),
          .new_window_blocks = {step.new_window_blocks().begin(), step.new_window_blocks().end()},
          .save_snapshot = OneLess(step.save_snapshot()),
          .score_top = step.score_top()};
}

void ToProto(const std::vector<std::pair<TokenId, float>>& top, v1::TokenLogprobs* proto) {
  for (const auto& [token, logprob] : top) {
    proto->add_top_ids(token);
    proto->add_top_logprobs(logprob);
  }
}

}  // namespace

absl::StatusOr<Assignment> FromProto(const v1::Assign& assign, uint64_t worker_id) {
  Assignment assignment;
  assignment.epoch = assign.epoch();
  assignment.model_path = assign.model_path();
  assignment.model_fingerprint = assign.model_fingerprint();
  ESSOR_ASSIGN_OR_RETURN(assignment.plan, model::ParallelPlan::Parse(assign.plan()));
  ESSOR_ASSIGN_OR_RETURN(assignment.precision, ParsePrecision(assign.dtype()));
  if (!assign.draft_layers().empty()) {
    ESSOR_ASSIGN_OR_RETURN(assignment.draft_layers, model::ParseDraftLayers(assign.draft_layers()));
  }
  const std::optional<KvType> kv_type = ParseKvType(assign.kv_dtype());
  if (!kv_type.has_value()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "kv_dtype: \"%s\" is none of float32, bfloat16, fp8 and int8", assign.kv_dtype()));
  }
  for (const v1::RankPlacement& placement : assign.ranks()) {
    if (placement.worker_id() == worker_id) assignment.local_ranks.push_back(placement.rank());
  }
  if (assignment.local_ranks.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("ranks: epoch %d gives worker %d none", assign.epoch(), worker_id));
  }
  std::sort(assignment.local_ranks.begin(), assignment.local_ranks.end());
  assignment.limits = {.block_tokens = assign.block_tokens(),
                       .max_step_tokens = assign.max_step_tokens(),
                       .max_sequences = assign.max_sequences(),
                       .max_context_tokens = assign.max_context_tokens(),
                       .kv_type = *kv_type};
  assignment.capacity = {.num_blocks = assign.num_blocks(),
                         .num_window_blocks = assign.num_window_blocks(),
                         .num_snapshots = assign.num_snapshots()};
  assignment.weights_key = assign.weights_key();
  assignment.local_index = assign.local_index();
  assignment.local_count = std::max(assign.local_count(), 1u);
  return assignment;
}

absl::StatusOr<EpochMembers> MembersFromProto(const v1::Assign& assign,
                                              const v1::Connect& connect) {
  std::map<uint64_t, DataEndpoint> endpoints;
  for (const v1::Connect::Member& member : connect.members()) {
    endpoints[member.worker_id()] = {.host_key = member.data().host_key(),
                                     .shm_name = member.data().shm_name(),
                                     .tcp_address = member.data().tcp_address()};
  }
  EpochMembers members;
  members.epoch = connect.epoch();
  members.ranks.resize(static_cast<size_t>(assign.ranks_size()));
  for (const v1::RankPlacement& placement : assign.ranks()) {
    const auto found = endpoints.find(placement.worker_id());
    if (found == endpoints.end() || placement.rank() >= members.ranks.size()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("members: rank %d is on worker %d, which is not a member",
                          placement.rank(), placement.worker_id()));
    }
    members.ranks[placement.rank()] = {.worker_id = placement.worker_id(),
                                       .endpoint = found->second};
  }
  return members;
}

StepInput FromProto(const v1::Step& step, absl::Time now) {
  StepInput input;
  input.step_id = StepId(step.step_id());
  input.deadline =
      step.timeout_ms() > 0 ? now + absl::Milliseconds(step.timeout_ms()) : absl::InfiniteFuture();
  input.release_slots = {step.release_slots().begin(), step.release_slots().end()};
  for (const v1::SequenceStart& start : step.starts()) input.starts.push_back(FromProto(start));
  for (const v1::BlockCopy& copy : step.copies()) {
    input.copies.push_back(
        {.group = copy.group(), .from = copy.from(), .to = copy.to(), .window = copy.window()});
  }
  input.sequences.reserve(static_cast<size_t>(step.decode_slots_size() + step.sequences_size()));
  for (const uint32_t slot : step.decode_slots()) input.sequences.push_back({.slot = slot});
  for (const v1::SequenceStep& sequence : step.sequences()) {
    input.sequences.push_back(FromProto(sequence));
  }
  return input;
}

void ToProto(const StepOutput& output, uint64_t epoch, v1::StepResult* result) {
  result->set_epoch(epoch);
  result->set_step_id(output.step_id.value());
  result->set_compute_us(static_cast<uint64_t>(absl::ToInt64Microseconds(output.compute_time)));
  for (const StepOutput::Sampled& sampled : output.sampled) {
    result->add_slot(sampled.slot);
    result->add_token_id(sampled.token);
  }
  for (const TokenLogprob& logprobs : output.logprobs) {
    v1::TokenLogprobs* const proto = result->add_logprobs();
    proto->set_logprob(logprobs.logprob);
    ToProto(logprobs.top, proto);
  }
  for (const StepOutput::Scored& scored : output.scored) {
    v1::ScoreRows* rows = result->add_scores();
    rows->set_slot(scored.slot);
    rows->mutable_logprobs()->Add(scored.logprobs.begin(), scored.logprobs.end());
    rows->set_logits(scored.logits.data(), scored.logits.size() * sizeof(float));
    for (const auto& top : scored.tops) ToProto(top, rows->add_tops());
  }
}

void ToProto(const DataEndpoint& endpoint, v1::DataEndpoint* proto) {
  proto->set_host_key(endpoint.host_key);
  proto->set_shm_name(endpoint.shm_name);
  proto->set_tcp_address(endpoint.tcp_address);
}

bool IsFatal(const absl::Status& status, Failed failed) {
  if (failed == Failed::kStep) return false;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kPermissionDenied:
      return true;
    default:
      return false;
  }
}

}  // namespace essor::worker
