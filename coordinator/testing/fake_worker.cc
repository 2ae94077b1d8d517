#include "coordinator/testing/fake_worker.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/grpc_status.h"
#include "coordinator/core/seed.h"
#include "grpcpp/grpcpp.h"

namespace essor::coordinator {
namespace {

constexpr absl::Duration kHeartbeat = absl::Milliseconds(200);

void FillTop(uint32_t count, float logprob, v1::TokenLogprobs* logprobs) {
  logprobs->set_logprob(logprob);
  for (uint32_t i = 0; i < count; ++i) {
    logprobs->add_top_ids('A' + i);
    logprobs->add_top_logprobs(-1.0f - static_cast<float>(i));
  }
}

}  // namespace

TokenId FakeToken(uint64_t seed, uint32_t position) {
  uint64_t mixed = (seed + 1) * 0x9e3779b97f4a7c15ull + position * 0xbf58476d1ce4e5b9ull;
  mixed ^= mixed >> 31;
  return 'a' + static_cast<TokenId>(mixed % 26);
}

std::string FakeText(uint64_t seed, uint32_t prompt_length, uint32_t num_tokens) {
  std::string text;
  for (uint32_t i = 0; i < num_tokens; ++i) {
    text.push_back(static_cast<char>(FakeToken(seed, prompt_length + i)));
  }
  return text;
}

std::vector<std::string> BestFakeTexts(uint64_t seed, uint32_t prompt_length, uint32_t num_tokens,
                                       uint32_t count) {
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < count; ++i) {
    texts.push_back(FakeText(ContinuationSeed(seed, i), prompt_length, num_tokens));
  }
  const auto logprob = [](const std::string& text) {
    float sum = 0;
    for (const char token : text) sum += FakeLogprob(static_cast<TokenId>(token));
    return sum;
  };
  std::stable_sort(texts.begin(), texts.end(), [&](const std::string& a, const std::string& b) {
    return logprob(a) > logprob(b);
  });
  return texts;
}

FakeWorker::FakeWorker(Options options) : options_(std::move(options)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  stub_ = v1::Cluster::NewStub(
      grpc::CreateCustomChannel(options_.address, grpc::InsecureChannelCredentials(), arguments));
  stream_ = stub_->Join(&context_);
  v1::WorkerMessage message;
  v1::Hello* const hello = message.mutable_hello();
  hello->set_build(options_.build);
  hello->set_incarnation(options_.incarnation);
  hello->set_host("fake");
  hello->set_pid(1);
  hello->set_num_devices(options_.num_devices);
  hello->set_memory_bytes(options_.memory_bytes);
  hello->mutable_data()->set_host_key("fake-host");
  Send(message);
  reader_ = std::thread([this] { ReadLoop(); });
  heartbeats_ = std::thread([this] { HeartbeatLoop(); });
}

FakeWorker::~FakeWorker() {
  Kill();
  reader_.join();
  heartbeats_.join();
}

void FakeWorker::Kill() { context_.TryCancel(); }

void FakeWorker::Send(const v1::WorkerMessage& message) {
  absl::MutexLock lock(&write_mutex_);
  if (!ended_) stream_->Write(message);
}

absl::Status FakeWorker::Wait() {
  while (!ended_) absl::SleepFor(absl::Milliseconds(5));
  return FromGrpcStatus(status_);
}

void FakeWorker::ReadLoop() {
  v1::CoordinatorMessage message;
  while (stream_->Read(&message)) {
    if (!frozen_) Handle(message);
  }
  status_ = stream_->Finish();
  ended_ = true;
}

void FakeWorker::HeartbeatLoop() {
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  while (!ended_) {
    if (!frozen_) Send(message);
    absl::SleepFor(kHeartbeat);
  }
}

void FakeWorker::Handle(const v1::CoordinatorMessage& message) {
  v1::WorkerMessage answer;
  if (message.has_welcome()) {
    absl::MutexLock lock(&mutex_);
    worker_id_ = message.welcome().worker_id();
    return;
  }
  if (message.has_assign()) {
    absl::MutexLock lock(&mutex_);
    assign_ = message.assign();
    slots_.clear();
    if (held_weights_ != assign_.weights_key()) num_loads_.fetch_add(1);
    held_weights_ = assign_.weights_key();
    answer.mutable_loaded()->set_epoch(assign_.epoch());
  } else if (message.has_connect()) {
    answer.mutable_ready()->set_epoch(message.connect().epoch());
  } else if (message.has_release()) {
    answer.mutable_released()->set_epoch(message.release().epoch());
  } else if (message.has_step()) {
    return HandleStep(message.step());
  } else if (message.has_shutdown()) {
    shut_down_ = true;
    return Kill();
  }
  Send(answer);
}

void FakeWorker::HandleStep(const v1::Step& step) {
  if (hold_steps_) return;
  if (options_.step_time > absl::ZeroDuration()) absl::SleepFor(options_.step_time);
  v1::WorkerMessage message;
  v1::StepResult* const result = message.mutable_step_result();
  result->set_epoch(step.epoch());
  result->set_step_id(step.step_id());
  {
    absl::MutexLock lock(&mutex_);
    for (const uint32_t slot : step.release_slots()) {
      if (slots_.erase(slot) == 0) Violation(absl::StrCat("release of the empty slot ", slot));
    }
    for (const v1::SequenceStart& start : step.starts()) {
      Slot state;
      state.seed = start.sampling().seed();
      state.num_tokens = start.context_tokens();
      state.blocks = {start.blocks().begin(), start.blocks().end()};
      state.logprobs = start.sampling().logprobs();
      last_sampling_ = start.sampling();
      if (!slots_.emplace(start.slot(), state).second) {
        Violation(absl::StrCat("start in the taken slot ", start.slot()));
      }
    }
    // Only the worker of the plan's last rank answers for the instance (tests use pp=1: rank 0).
    const bool answers = assign_.ranks(0).worker_id() == worker_id_;
    uint32_t num_tokens = 0;
    for (const uint32_t slot : step.decode_slots()) {
      v1::SequenceStep sequence;
      sequence.set_slot(slot);
      num_tokens += 1;
      RunSequence(sequence, answers, result);
    }
    for (const v1::SequenceStep& sequence : step.sequences()) {
      num_tokens += std::max(1, sequence.token_ids_size());
      RunSequence(sequence, answers, result);
    }
    if (num_tokens > assign_.max_step_tokens()) Violation("the token budget is exceeded");
    for (const auto& [slot, state] : slots_) {
      for (const uint32_t block : state.blocks) {
        if (block >= assign_.num_blocks()) Violation(absl::StrCat("no block ", block));
      }
    }
  }
  num_steps_.fetch_add(1);
  Send(message);
}

void FakeWorker::RunSequence(const v1::SequenceStep& sequence, bool answers,
                             v1::StepResult* result) {
  const auto found = slots_.find(sequence.slot());
  if (found == slots_.end()) {
    return Violation(absl::StrCat("a step of the empty slot ", sequence.slot()));
  }
  Slot& slot = found->second;
  slot.blocks.insert(slot.blocks.end(), sequence.new_blocks().begin(), sequence.new_blocks().end());
  if (sequence.token_ids().empty() && !slot.sampled) Violation("nothing was sampled before");
  slot.num_tokens += std::max(1, sequence.token_ids_size());
  if (slot.blocks.size() * assign_.block_tokens() < slot.num_tokens) {
    Violation(absl::StrCat("slot ", sequence.slot(), " lacks blocks"));
  }
  slot.sampled = !sequence.hold();
  if (!answers) return;
  if (!sequence.hold()) {
    result->add_slot(sequence.slot());
    const bool forced = options_.forced_token != UINT32_MAX;
    const TokenId token = forced ? options_.forced_token : FakeToken(slot.seed, slot.num_tokens);
    result->add_token_id(token);
    if (slot.logprobs > 0) FillTop(slot.logprobs - 1, FakeLogprob(token), result->add_logprobs());
  }
  if (!sequence.score()) return;
  v1::ScoreRows* const rows = result->add_scores();
  rows->set_slot(sequence.slot());
  // log p of a target is minus its id: recognisable.
  for (const uint32_t target : sequence.score_targets()) {
    rows->add_logprobs(-static_cast<float>(target));
    if (sequence.score_top() > 0) FillTop(sequence.score_top(), 0, rows->add_tops());
  }
  if (sequence.return_logits()) {
    rows->set_logits(std::string(
        static_cast<size_t>(sequence.token_ids_size()) * options_.vocab_size * sizeof(float),
        '\0'));
  }
}

void FakeWorker::Violation(const std::string& text) { violations_.push_back(text); }

v1::Assign FakeWorker::last_assign() const {
  absl::MutexLock lock(&mutex_);
  return assign_;
}

v1::SequenceSampling FakeWorker::last_sampling() const {
  absl::MutexLock lock(&mutex_);
  return last_sampling_;
}

std::vector<std::string> FakeWorker::violations() const {
  absl::MutexLock lock(&mutex_);
  return violations_;
}

uint32_t FakeWorker::num_slots_in_use() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<uint32_t>(slots_.size());
}

}  // namespace essor::coordinator
