#include "worker/session/session.h"

#include <unistd.h>

#include <functional>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/bounded_queue.h"
#include "common/clock.h"
#include "common/grpc_status.h"
#include "common/log.h"
#include "essor/v1/cluster.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "worker/session/conversions.h"

namespace essor::worker {
namespace {

constexpr absl::Duration kRetryPauseMin = absl::Milliseconds(100);
constexpr absl::Duration kRetryPauseMax = absl::Seconds(2);
constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);
// Steps with long prompts or many scored rows stay far below; a larger message is a bug.
constexpr int kMessageBytesMax = 64 << 20;
// Control messages are few: assign, connect, release.
constexpr size_t kControlQueueMax = 64;

// One life of the stream. Reads on the calling thread; writes from any.
class JoinedStream {
 public:
  JoinedStream(const Session::Options& options, LocalRanks* ranks, DataPlane* data_plane,
               SessionHealth* health)
      : options_(options), ranks_(ranks), data_plane_(data_plane), health_(*health) {}

  // Runs to the end of the stream and returns its status.
  grpc::Status Run(v1::Cluster::Stub& stub, const std::function<void()>& on_welcome);
  void Announce() {
    v1::WorkerMessage message;
    message.mutable_leaving();
    Write(message);
  }
  void Cancel() { context_.TryCancel(); }
  bool shutdown() const { return shutdown_; }

 private:
  void Handle(const v1::CoordinatorMessage& message);
  void HandleAssign(const v1::Assign& assign);
  void HandleConnect(const v1::Connect& connect);
  void HandleStep(const v1::Step& step);
  void LoadWeights(const Assignment& assignment);
  void FormEpoch(const v1::Assign& assign, const v1::Connect& connect);
  void OnStepDone(uint64_t epoch, absl::StatusOr<StepOutput> output, uint32_t failed_rank);
  void Fail(uint64_t epoch, uint32_t rank, const absl::Status& status,
            Failed failed = Failed::kForming);
  void ReportProgress(uint64_t epoch, uint32_t rank, uint64_t done, uint64_t total);
  void SendHeartbeats();
  void Write(const v1::WorkerMessage& message);
  void EndEpoch(const std::string& reason);
  v1::Hello MakeHello() const;

  const Session::Options& options_;
  LocalRanks* const ranks_;
  DataPlane* const data_plane_;
  SessionHealth& health_;

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
  absl::Mutex write_mutex_;
  bool writes_done_ ABSL_GUARDED_BY(write_mutex_) = false;

  // Of the reading thread.
  uint64_t worker_id_ = 0;
  v1::Assign assign_;
  bool shutdown_ = false;
  absl::Duration heartbeat_interval_ = absl::Milliseconds(500);

  std::atomic<int64_t> last_progress_ns_{0};
  absl::Mutex heartbeat_mutex_;
  bool stop_heartbeats_ ABSL_GUARDED_BY(heartbeat_mutex_) = false;
  // Loading and connecting take long and must not keep the stream from being read.
  BoundedQueue<std::function<void()>> control_{kControlQueueMax};
};

grpc::Status JoinedStream::Run(v1::Cluster::Stub& stub, const std::function<void()>& on_welcome) {
  stream_ = stub.Join(&context_);
  v1::WorkerMessage hello;
  *hello.mutable_hello() = MakeHello();
  Write(hello);

  std::thread control([this] {
    while (auto task = control_.Pop()) (*task)();
  });
  std::thread heartbeats;
  v1::CoordinatorMessage message;
  while (!shutdown_ && stream_->Read(&message)) {
    Handle(message);
    if (message.has_welcome()) {
      health_.joined = true;
      heartbeats = std::thread([this] { SendHeartbeats(); });
      on_welcome();
    }
  }
  health_.joined = false;
  health_.serving = false;
  EndEpoch("the stream to the coordinator ended");
  control_.Close();
  control.join();
  ranks_->Release();
  {
    absl::MutexLock lock(&heartbeat_mutex_);
    stop_heartbeats_ = true;
  }
  if (heartbeats.joinable()) heartbeats.join();
  {
    absl::MutexLock lock(&write_mutex_);
    writes_done_ = true;
    stream_->WritesDone();
  }
  if (shutdown_) context_.TryCancel();
  return stream_->Finish();
}

v1::Hello JoinedStream::MakeHello() const {
  v1::Hello hello;
  hello.set_build(options_.build);
  hello.set_incarnation(options_.incarnation);
  hello.set_host(options_.host);
  hello.set_pid(getpid());
  hello.set_num_devices(options_.num_devices);
  hello.set_memory_bytes(options_.memory_bytes);
  hello.set_num_cpus(options_.num_cpus);
  hello.set_held_weights(ranks_->held_weights());
  hello.set_last_epoch(health_.epoch);
  ToProto(data_plane_->endpoint(), hello.mutable_data());
  return hello;
}

void JoinedStream::Write(const v1::WorkerMessage& message) {
  absl::MutexLock lock(&write_mutex_);
  // A failed write means that the stream is gone; the reading thread sees it and ends.
  if (!writes_done_) stream_->Write(message);
}

void JoinedStream::SendHeartbeats() {
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  absl::MutexLock lock(&heartbeat_mutex_);
  while (
      !heartbeat_mutex_.AwaitWithTimeout(absl::Condition(&stop_heartbeats_), heartbeat_interval_)) {
    Write(message);
  }
}

void JoinedStream::Handle(const v1::CoordinatorMessage& message) {
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      worker_id_ = message.welcome().worker_id();
      if (message.welcome().heartbeat_interval_ms() > 0) {
        heartbeat_interval_ = absl::Milliseconds(message.welcome().heartbeat_interval_ms());
      }
      spdlog::info("joined coordinator={} worker_id={}", options_.coordinator, worker_id_);
      return;
    case v1::CoordinatorMessage::kAssign:
      return HandleAssign(message.assign());
    case v1::CoordinatorMessage::kConnect:
      return HandleConnect(message.connect());
    case v1::CoordinatorMessage::kStep:
      return HandleStep(message.step());
    case v1::CoordinatorMessage::kRelease: {
      const uint64_t epoch = message.release().epoch();
      spdlog::info("releasing epoch={} reason={}", epoch, LogSafe(message.release().reason()));
      health_.serving = false;
      ranks_->Cancel(epoch, message.release().reason());
      control_.TryPush([this, epoch] {
        ranks_->Release();
        v1::WorkerMessage released;
        released.mutable_released()->set_epoch(epoch);
        Write(released);
      });
      return;
    }
    case v1::CoordinatorMessage::kShutdown:
      spdlog::info("shutting down reason={}", LogSafe(message.shutdown().reason()));
      shutdown_ = true;
      return;
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      return;  // a kind that a newer coordinator knows
  }
}

void JoinedStream::EndEpoch(const std::string& reason) {
  if (assign_.epoch() != 0) ranks_->Cancel(assign_.epoch(), reason);
}

void JoinedStream::HandleAssign(const v1::Assign& assign) {
  assign_ = assign;
  health_.epoch = assign.epoch();
  absl::StatusOr<Assignment> assignment = FromProto(assign, worker_id_);
  if (!assignment.ok()) return Fail(assign.epoch(), 0, assignment.status());
  control_.TryPush([this, assignment = *std::move(assignment)] { LoadWeights(assignment); });
}

void JoinedStream::LoadWeights(const Assignment& assignment) {
  const uint64_t epoch = assignment.epoch;
  absl::StatusOr<LoadReport> report =
      ranks_->Load(assignment, [this, epoch](uint32_t rank, uint64_t done, uint64_t total) {
        ReportProgress(epoch, rank, done, total);
      });
  if (!report.ok()) return Fail(epoch, assignment.local_ranks.front(), report.status());
  if (report->kept) spdlog::info("weights kept epoch={} bytes={}", epoch, report->weight_bytes);
  health_.weight_bytes = report->weight_bytes;
  v1::WorkerMessage message;
  message.mutable_loaded()->set_epoch(epoch);
  message.mutable_loaded()->set_weight_bytes(report->weight_bytes);
  message.mutable_loaded()->set_kv_bytes(report->kv_bytes);
  Write(message);
}

void JoinedStream::ReportProgress(uint64_t epoch, uint32_t rank, uint64_t done, uint64_t total) {
  const int64_t now = absl::ToUnixNanos(Clock::Steady().Now());
  int64_t last = last_progress_ns_.load(std::memory_order_relaxed);
  if (done < total && now - last < absl::ToInt64Nanoseconds(kProgressInterval)) return;
  if (!last_progress_ns_.compare_exchange_strong(last, now)) return;  // another thread reports
  v1::WorkerMessage message;
  v1::LoadProgress* progress = message.mutable_load_progress();
  progress->set_epoch(epoch);
  progress->add_rank(rank);
  progress->add_bytes_done(done);
  progress->add_bytes_total(total);
  Write(message);
}

void JoinedStream::HandleConnect(const v1::Connect& connect) {
  control_.TryPush([this, assign = assign_, connect] { FormEpoch(assign, connect); });
}

void JoinedStream::FormEpoch(const v1::Assign& assign, const v1::Connect& connect) {
  const uint64_t epoch = connect.epoch();
  if (assign.epoch() != epoch) return;  // fenced: the assignment has changed since
  absl::StatusOr<EpochMembers> members = MembersFromProto(assign, connect);
  absl::Status status = members.status();
  if (status.ok()) {
    status =
        ranks_->Connect(*members, Clock::Steady().Now() + absl::Milliseconds(connect.timeout_ms()),
                        [this, epoch](absl::StatusOr<StepOutput> output, uint32_t rank) {
                          OnStepDone(epoch, std::move(output), rank);
                        });
  }
  if (!status.ok()) return Fail(epoch, 0, status);
  health_.serving = true;
  spdlog::info("ready epoch={} plan={}", epoch, LogSafe(assign.plan()));
  v1::WorkerMessage message;
  message.mutable_ready()->set_epoch(epoch);
  Write(message);
}

void JoinedStream::HandleStep(const v1::Step& step) {
  if (step.epoch() != assign_.epoch()) return;  // fenced
  const absl::Status status = ranks_->Submit(FromProto(step, Clock::Steady().Now()));
  if (!status.ok()) Fail(step.epoch(), 0, status, Failed::kStep);
}

void JoinedStream::OnStepDone(uint64_t epoch, absl::StatusOr<StepOutput> output,
                              uint32_t failed_rank) {
  if (!output.ok()) {
    health_.serving = false;
    return Fail(epoch, failed_rank, output.status(), Failed::kStep);
  }
  v1::WorkerMessage message;
  ToProto(*output, epoch, message.mutable_step_result());
  Write(message);
  health_.steps_total.fetch_add(1, std::memory_order_relaxed);
}

void JoinedStream::Fail(uint64_t epoch, uint32_t rank, const absl::Status& status, Failed failed) {
  if (status.code() != absl::StatusCode::kCancelled) {
    spdlog::error("rank failed epoch={} rank={} error=\"{}\"", epoch, rank,
                  LogSafe(std::string(status.message()), 1024));
  }
  v1::WorkerMessage message;
  v1::RankFailure* failure = message.mutable_failure();
  failure->set_epoch(epoch);
  failure->set_rank(rank);
  failure->set_code(static_cast<int>(status.code()));
  failure->set_message(std::string(status.message()));
  failure->set_fatal(IsFatal(status, failed));
  Write(message);
}

class ReconnectingSession : public Session {
 public:
  ReconnectingSession(const Options& options, LocalRanks* ranks, DataPlane* data_plane)
      : options_(options), ranks_(ranks), data_plane_(data_plane) {}

  absl::Status Run() override;
  void Stop() override;
  const SessionHealth& health() const override { return health_; }

 private:
  // The status of one stream from dialling to its end.
  grpc::Status RunStream(const std::function<void()>& on_welcome);
  // False when the session was stopped meanwhile.
  bool Pause(absl::Duration pause);

  const Options options_;
  LocalRanks* const ranks_;
  DataPlane* const data_plane_;
  SessionHealth health_;
  absl::Mutex mutex_;
  int stops_ ABSL_GUARDED_BY(mutex_) = 0;
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;
  JoinedStream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

absl::Status ReconnectingSession::Run() {
  absl::Duration pause = kRetryPauseMin;
  // One failure may be the moment in which a cluster is stopped: told from the second on.
  int failures = 0;
  while (true) {
    const grpc::Status end = RunStream([&] {
      pause = kRetryPauseMin;
      failures = 0;
    });
    {
      absl::MutexLock lock(&mutex_);
      if (shutdown_ || stops_ > 0) return absl::OkStatus();
    }
    const absl::Status status = FromGrpcStatus(end);
    if (absl::IsUnimplemented(status)) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s does not serve essor.v1.Cluster: is it the coordinator's --listen-cluster address?",
          options_.coordinator));
    }
    if (absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status) ||
        absl::IsUnauthenticated(status)) {
      return status;
    }
    if (++failures == 2) {
      spdlog::warn("no coordinator at {}: {}; trying again", options_.coordinator,
                   LogSafe(std::string(status.message())));
    }
    if (!Pause(pause)) return absl::OkStatus();
    pause = std::min(pause * 2, kRetryPauseMax);
  }
}

grpc::Status ReconnectingSession::RunStream(const std::function<void()>& on_welcome) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  // A fresh channel each time: our own pauses decide when to dial, not gRPC's back-off.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel = grpc::CreateCustomChannel(options_.coordinator,
                                                 grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::Cluster::NewStub(channel);
  JoinedStream stream(options_, ranks_, data_plane_, &health_);
  {
    absl::MutexLock lock(&mutex_);
    if (stops_ > 0) return grpc::Status::OK;
    stream_ = &stream;
  }
  const grpc::Status end = stream.Run(*stub, on_welcome);
  absl::MutexLock lock(&mutex_);
  stream_ = nullptr;
  shutdown_ = stream.shutdown();
  return end;
}

bool ReconnectingSession::Pause(absl::Duration pause) {
  absl::MutexLock lock(&mutex_);
  const auto stopped = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stops_ > 0; };
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopped), pause);
}

void ReconnectingSession::Stop() {
  health_.leaving = true;
  absl::MutexLock lock(&mutex_);
  ++stops_;
  if (stream_ == nullptr) return;
  if (stops_ == 1 && health_.joined) {
    stream_->Announce();
  } else {
    stream_->Cancel();
  }
}

}  // namespace

std::unique_ptr<Session> Session::Create(const Options& options, LocalRanks* ranks,
                                         DataPlane* data_plane) {
  return std::make_unique<ReconnectingSession>(options, ranks, data_plane);
}

}  // namespace essor::worker
