// The coordinator's CPU time per generated token with a worker that answers at once and clients
// that only count: scheduling, text, the messages of steps and results to and from bytes.
//
// Goal: at most 0.5 us at a batch of 256. Making the worker's answer is counted too, as it cannot
// be told apart here.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/log.h"
#include "coordinator/service/driver.h"
#include "coordinator/testing/byte_tokenizer.h"

namespace essor::coordinator {
namespace {

constexpr uint32_t kPromptTokens = 64;
constexpr char kBuild[] = "benchmark";

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Answers from within Send: the driver finds the answer in its queue when it has sent the step.
class NullWorker final : public WorkerLink, public std::enable_shared_from_this<NullWorker> {
 public:
  explicit NullWorker(Driver* driver) : driver_(*driver) {}

  void Send(const v1::CoordinatorMessage& message) override {
    message.SerializeToString(&bytes_);
    v1::WorkerMessage answer;
    if (message.has_assign()) {
      answer.mutable_loaded()->set_epoch(message.assign().epoch());
    } else if (message.has_connect()) {
      answer.mutable_ready()->set_epoch(message.connect().epoch());
    } else if (message.has_step()) {
      step_bytes_ += bytes_.size();
      Answer(message.step(), answer.mutable_step_result());
    } else {
      return;
    }
    answer.SerializeToString(&bytes_);
    v1::WorkerMessage received;
    received.ParseFromString(bytes_);
    driver_.PostMessage(shared_from_this(), std::move(received));
  }
  void Close(const absl::Status& status) override {
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  }
  uint64_t step_bytes() const { return step_bytes_; }

 private:
  static void Answer(const v1::Step& step, v1::StepResult* result) {
    result->set_epoch(step.epoch());
    result->set_step_id(step.step_id());
    const auto sample = [result](uint32_t slot) {
      result->add_slot(slot);
      result->add_token_id('a');
    };
    for (const uint32_t slot : step.decode_slots()) sample(slot);
    for (const v1::SequenceStep& entry : step.sequences()) {
      if (!entry.hold()) sample(entry.slot());
    }
  }

  Driver& driver_;
  std::string bytes_;
  uint64_t step_bytes_ = 0;
};

class CountingSink final : public RequestSink {
 public:
  CountingSink(std::atomic<uint32_t>* left, absl::Notification* all) : left_(*left), all_(*all) {}
  void OnTokens(TokenOutput output) override { num_bytes_ += output.text.size(); }
  void OnDone(absl::Status status) override {
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    if (--left_ == 0) all_.Notify();
  }

 private:
  std::atomic<uint32_t>& left_;
  absl::Notification& all_;
  uint64_t num_bytes_ = 0;
};

Driver::Options OptionsFor(uint32_t batch, const ByteTokenizer* tokenizer) {
  Driver::Options options;
  options.membership.num_workers = options.membership.num_ranks = 1;
  options.membership.build = kBuild;
  options.membership.capacity = [](uint32_t, uint64_t) -> absl::StatusOr<model::KvCapacity> {
    return model::KvCapacity{.num_blocks = 1u << 20};
  };
  options.membership.heartbeat_timeout = absl::Hours(1);
  options.scheduler.max_running_requests = options.scheduler.num_slots = batch;
  options.scheduler.max_step_tokens = 8192;
  options.output_model = {.tokenizer = tokenizer,
                          .eos_tokens = {ByteTokenizer::kEos},
                          .vocab_size = tokenizer->vocab_size()};
  return options;
}

void Measure(uint32_t batch, uint32_t tokens_each) {
  const ByteTokenizer tokenizer;
  CoordinatorMetrics metrics;
  Driver driver(OptionsFor(batch, &tokenizer), &Clock::Steady(), &metrics);
  const auto worker = std::make_shared<NullWorker>(&driver);
  driver.PostHello(worker, {.build = kBuild,
                            .incarnation = "w",
                            .host = "h",
                            .num_devices = 1,
                            .memory_bytes = 1,
                            .data = {},
                            .held_weights = ""});
  driver.RunHere();
  while (!driver.Ready()) std::this_thread::yield();

  std::atomic<uint32_t> left = batch;
  absl::Notification all;
  const uint64_t bytes_before = worker->step_bytes();
  const double before = CpuSeconds();
  for (uint32_t i = 0; i < batch; ++i) {
    GenerateTask task;
    std::vector<TokenId> prompt(kPromptTokens, 'x');
    prompt[0] = static_cast<TokenId>(i % 256);
    task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    task.max_new_tokens = tokens_each;
    driver.Submit(driver.TakeTicket(std::to_string(i)), std::move(task),
                  std::make_shared<CountingSink>(&left, &all));
  }
  all.WaitForNotification();
  const double tokens = static_cast<double>(batch) * tokens_each;
  std::printf("batch %4u: %.3f us CPU and %.2f bytes of steps per generated token\n", batch,
              1e6 * (CpuSeconds() - before) / tokens,
              static_cast<double>(worker->step_bytes() - bytes_before) / tokens);
}

}  // namespace
}  // namespace essor::coordinator

int main() {
  essor::InitLogging({.process = "benchmark", .level = "warn"});
  for (const uint32_t batch : {1u, 32u, 256u, 1024u}) {
    for (int i = 0; i < 3; ++i) {
      essor::coordinator::Measure(batch, std::max(4'000'000u / batch, 4096u) / 4);
    }
  }
}
