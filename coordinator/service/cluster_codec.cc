#include "coordinator/service/cluster_codec.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace essor::coordinator {
namespace {

void ToProto(const SamplingSettings& sampling, v1::SequenceSampling* proto) {
  proto->set_temperature(sampling.temperature);
  proto->set_top_p(sampling.top_p);
  proto->set_top_k(sampling.top_k);
  proto->set_min_p(sampling.min_p);
  proto->set_seed(sampling.seed);
  if (sampling.typical_p != 1.0f) proto->set_typical_p(sampling.typical_p);
  if (sampling.repetition_penalty != 1.0f) {
    proto->set_repetition_penalty(sampling.repetition_penalty);
  }
  proto->set_presence_penalty(sampling.presence_penalty);
  proto->set_frequency_penalty(sampling.frequency_penalty);
  for (const auto& [token, bias] : sampling.logit_bias) {
    proto->add_bias_ids(token);
    proto->add_biases(bias);
  }
  proto->mutable_late_ids()->Add(sampling.late_tokens.begin(), sampling.late_tokens.end());
  proto->set_min_new_tokens(sampling.min_new_tokens);
  if (sampling.logprobs.has_value()) proto->set_logprobs(1 + *sampling.logprobs);
}

void ToProto(const std::vector<BlockId>& blocks, google::protobuf::RepeatedField<uint32_t>* proto) {
  for (const BlockId block : blocks) proto->Add(block.value());
}

void ToProto(const SlotStart& start, v1::SequenceStart* proto) {
  proto->set_slot(start.slot);
  ToProto(start.sampling, proto->mutable_sampling());
  proto->set_context_tokens(start.context_tokens);
  ToProto(start.blocks, proto->mutable_blocks());
  proto->set_first_window_block(start.first_window_block);
  ToProto(start.window_blocks, proto->mutable_window_blocks());
  if (start.restore_snapshot.has_value()) proto->set_restore_snapshot(1 + *start.restore_snapshot);
  proto->set_prompt_tokens(start.prompt_tokens);
  proto->mutable_seen_ids()->Add(start.seen_tokens.begin(), start.seen_tokens.end());
}

void ToProto(const SequenceStep& entry, v1::SequenceStep* proto) {
  proto->set_slot(entry.slot);
  proto->mutable_token_ids()->Add(entry.tokens.begin(), entry.tokens.end());
  ToProto(entry.new_blocks, proto->mutable_new_blocks());
  ToProto(entry.new_window_blocks, proto->mutable_new_window_blocks());
  proto->set_hold(entry.hold);
  proto->set_score(entry.score);
  proto->mutable_score_targets()->Add(entry.score_targets.begin(), entry.score_targets.end());
  proto->set_score_top(entry.score_top);
  proto->set_return_logits(entry.return_logits);
  if (entry.save_snapshot.has_value()) proto->set_save_snapshot(1 + *entry.save_snapshot);
}

std::vector<std::pair<TokenId, float>> TopOf(const v1::TokenLogprobs& proto) {
  std::vector<std::pair<TokenId, float>> top;
  const int count = std::min(proto.top_ids_size(), proto.top_logprobs_size());
  for (int i = 0; i < count; ++i) top.emplace_back(proto.top_ids(i), proto.top_logprobs(i));
  return top;
}

}  // namespace

WorkerDescription FromProto(const v1::Hello& hello) {
  WorkerDescription description;
  description.build = hello.build();
  description.incarnation = hello.incarnation();
  description.host = hello.host();
  description.pid = hello.pid();
  description.num_devices = hello.num_devices();
  description.memory_bytes = hello.memory_bytes();
  description.data = {.host_key = hello.data().host_key(),
                      .shm_name = hello.data().shm_name(),
                      .tcp_address = hello.data().tcp_address()};
  description.held_weights = hello.held_weights();
  description.last_epoch = hello.last_epoch();
  return description;
}

v1::CoordinatorMessage ToProto(const SendAssign& action, const AssignmentConstants& constants) {
  v1::CoordinatorMessage message;
  v1::Assign* const assign = message.mutable_assign();
  assign->set_epoch(action.epoch.value());
  assign->set_model_path(constants.model_path);
  assign->set_model_fingerprint(constants.model_fingerprint);
  assign->set_plan(constants.plan);
  for (const RankPlacement& placement : action.assignment.ranks) {
    v1::RankPlacement* const proto = assign->add_ranks();
    proto->set_rank(placement.rank);
    proto->set_worker_id(placement.worker.value());
    proto->set_device(placement.device);
  }
  assign->set_block_tokens(constants.block_tokens);
  assign->set_num_blocks(action.assignment.capacity.num_blocks);
  assign->set_num_window_blocks(action.assignment.capacity.num_window_blocks);
  assign->set_num_snapshots(action.assignment.capacity.num_snapshots);
  assign->set_max_step_tokens(constants.max_step_tokens);
  assign->set_max_sequences(constants.max_sequences);
  assign->set_weights_key(action.assignment.weights_key);
  assign->set_local_index(action.assignment.local_index);
  assign->set_local_count(action.assignment.local_count);
  assign->set_dtype(constants.dtype);
  assign->set_draft_layers(constants.draft_layers);
  assign->set_max_context_tokens(constants.max_context_tokens);
  assign->set_kv_dtype(constants.kv_dtype);
  return message;
}

v1::CoordinatorMessage ToProto(const SendConnect& action, absl::Duration timeout) {
  v1::CoordinatorMessage message;
  v1::Connect* const connect = message.mutable_connect();
  connect->set_epoch(action.epoch.value());
  connect->set_timeout_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(timeout)));
  for (const auto& [worker, endpoint] : action.members) {
    v1::Connect::Member* const member = connect->add_members();
    member->set_worker_id(worker.value());
    member->mutable_data()->set_host_key(endpoint.host_key);
    member->mutable_data()->set_shm_name(endpoint.shm_name);
    member->mutable_data()->set_tcp_address(endpoint.tcp_address);
  }
  return message;
}

v1::CoordinatorMessage ToProto(const SendRelease& action) {
  v1::CoordinatorMessage message;
  message.mutable_release()->set_epoch(action.epoch.value());
  message.mutable_release()->set_reason(action.reason);
  return message;
}

v1::CoordinatorMessage ToProto(const Step& step, Epoch epoch, absl::Duration timeout) {
  v1::CoordinatorMessage message;
  v1::Step* const proto = message.mutable_step();
  proto->set_epoch(epoch.value());
  proto->set_step_id(step.step_id.value());
  proto->set_timeout_ms(
      static_cast<uint32_t>(std::min<int64_t>(absl::ToInt64Milliseconds(timeout), UINT32_MAX)));
  proto->mutable_release_slots()->Add(step.release_slots.begin(), step.release_slots.end());
  for (const SlotStart& start : step.starts) ToProto(start, proto->add_starts());
  for (const BlockCopy& copy : step.copies) {
    v1::BlockCopy* const proto_copy = proto->add_copies();
    proto_copy->set_group(copy.group);
    proto_copy->set_from(copy.from.value());
    proto_copy->set_to(copy.to.value());
    proto_copy->set_window(copy.window);
  }
  proto->mutable_decode_slots()->Add(step.decode_slots.begin(), step.decode_slots.end());
  for (const SequenceStep& entry : step.sequences) ToProto(entry, proto->add_sequences());
  return message;
}

absl::StatusOr<StepOutcome> FromProto(v1::StepResult* result) {
  if (result->slot_size() != result->token_id_size()) {
    return absl::InvalidArgumentError(absl::StrCat("StepResult has ", result->slot_size(),
                                                   " slots and ", result->token_id_size(),
                                                   " token ids"));
  }
  StepOutcome outcome;
  outcome.sampled.reserve(static_cast<size_t>(result->slot_size()));
  for (int i = 0; i < result->slot_size(); ++i) {
    outcome.sampled.push_back({.slot = result->slot(i), .token = result->token_id(i)});
  }
  for (v1::ScoreRows& rows : *result->mutable_scores()) {
    ScoreRows& scores = outcome.scores.emplace_back();
    scores.slot = rows.slot();
    scores.logprobs = {rows.logprobs().begin(), rows.logprobs().end()};
    scores.logits = std::move(*rows.mutable_logits());
    for (const v1::TokenLogprobs& top : rows.tops()) scores.tops.push_back(TopOf(top));
  }
  for (const v1::TokenLogprobs& logprobs : result->logprobs()) {
    outcome.logprobs.push_back({.logprob = logprobs.logprob(), .top = TopOf(logprobs)});
  }
  return outcome;
}

}  // namespace essor::coordinator
