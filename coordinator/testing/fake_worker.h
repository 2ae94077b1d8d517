// A worker for tests: speaks essor.v1.Cluster over a real stream and answers steps at once.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/ids.h"
#include "essor/v1/cluster.grpc.pb.h"

namespace essor::coordinator {

// The token that the fake model "samples" at `position` of a sequence with this seed: a printable
// byte, so that the whole output of a request is known in advance.
TokenId FakeToken(uint64_t seed, uint32_t position);
// A sampled token's log-probability; the most probable tokens are "A", "B", ... with -1, -2, ...
// whatever was sampled. Exact in float32.
inline float FakeLogprob(TokenId token) { return -static_cast<float>(token) / 256; }
// The text a request of this seed and prompt length gets.
std::string FakeText(uint64_t seed, uint32_t prompt_length, uint32_t num_tokens);
// The texts of the first `count` continuations of a prompt, the most probable first.
std::vector<std::string> BestFakeTexts(uint64_t seed, uint32_t prompt_length, uint32_t num_tokens,
                                       uint32_t count);

// Keeps the state a worker must keep (slots, positions, block tables) and checks every step against
// the protocol; violations are collected. Thread-safe.
class FakeWorker {
 public:
  struct Options {
    std::string address;  // of the cluster port
    std::string incarnation = "w1";
    std::string build;
    uint32_t num_devices = 8;
    uint64_t memory_bytes = uint64_t{1} << 30;
    uint32_t vocab_size = 257;
    absl::Duration step_time = absl::ZeroDuration();
    TokenId forced_token = UINT32_MAX;  // instead of FakeToken()
  };

  explicit FakeWorker(Options options);
  // Ends the stream as a killed process would.
  ~FakeWorker();

  // Stops answering: neither steps nor heartbeats. The stream stays open.
  void Freeze() { frozen_ = true; }
  // Stops answering steps; heartbeats go on.
  void HoldSteps(bool hold) { hold_steps_ = hold; }
  void Kill();
  void Send(const v1::WorkerMessage& message);
  // Waits for the stream's end and returns its status.
  absl::Status Wait();

  uint64_t num_steps() const { return num_steps_; }
  uint64_t num_loads() const { return num_loads_; }  // Assign whose weights were not held
  bool shut_down() const { return shut_down_; }
  v1::Assign last_assign() const;
  v1::SequenceSampling last_sampling() const;  // of the sequence that started last
  // What was wrong with the coordinator's messages; empty when nothing.
  std::vector<std::string> violations() const;
  uint32_t num_slots_in_use() const;

 private:
  struct Slot {
    uint64_t seed = 0;
    uint32_t logprobs = 0;    // as SequenceSampling has it
    uint32_t num_tokens = 0;  // KV positions filled
    bool sampled = false;     // a token waits to be the next input
    std::vector<uint32_t> blocks;
  };

  void ReadLoop();
  void HeartbeatLoop();
  void Handle(const v1::CoordinatorMessage& message);
  void HandleStep(const v1::Step& step);
  void RunSequence(const v1::SequenceStep& sequence, bool answers, v1::StepResult* result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Violation(const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::unique_ptr<v1::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
  std::atomic<bool> frozen_{false};
  std::atomic<bool> hold_steps_{false};
  std::atomic<bool> shut_down_{false};
  std::atomic<bool> ended_{false};
  std::atomic<uint64_t> num_steps_{0};
  std::atomic<uint64_t> num_loads_{0};
  absl::Mutex write_mutex_;
  mutable absl::Mutex mutex_;
  v1::Assign assign_ ABSL_GUARDED_BY(mutex_);
  v1::SequenceSampling last_sampling_ ABSL_GUARDED_BY(mutex_);
  std::string held_weights_ ABSL_GUARDED_BY(mutex_);
  uint64_t worker_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint32_t, Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> violations_ ABSL_GUARDED_BY(mutex_);
  grpc::Status status_;  // valid after reader_ has ended
  std::thread reader_;
  std::thread heartbeats_;
};

}  // namespace essor::coordinator
