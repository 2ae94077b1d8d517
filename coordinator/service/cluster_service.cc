#include "coordinator/service/cluster_service.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/grpc_status.h"
#include "common/log.h"

namespace essor::coordinator {
namespace {

constexpr int kMaxStreams = 4096;
// A worker that does not read: assignments and one step in flight need a handful.
constexpr size_t kMaxQueuedMessages = 256;

// One worker's stream. Keeps itself alive until gRPC is done with it; the driver may hold on to it
// longer.
class WorkerStream final
    : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>,
      public WorkerLink,
      public std::enable_shared_from_this<WorkerStream> {
 public:
  WorkerStream(Driver* driver, grpc::CallbackServerContext* context, std::atomic<int>* num_streams)
      : driver_(*driver), context_(context), num_streams_(*num_streams) {}

  // Separate from the constructor: the reactor must be owned before events can come.
  void Start() {
    self_ = shared_from_this();
    if (num_streams_.fetch_add(1) >= kMaxStreams) {
      Close(absl::ResourceExhaustedError("too many worker streams"));
      return;
    }
    StartRead(&incoming_);
  }

  void Send(const v1::CoordinatorMessage& message) override {
    bool full = false;
    {
      absl::MutexLock lock(&mutex_);
      if (closing_.has_value()) return;
      full = outgoing_.size() >= kMaxQueuedMessages;
      if (writing_ && !full) outgoing_.push_back(message);
      if (writing_ && !full) return;
      if (!full) writing_ = true;
    }
    if (full) return Close(absl::ResourceExhaustedError("the worker does not read its stream"));
    current_ = message;
    StartWrite(&current_);
  }

  void Close(const absl::Status& status) override {
    bool writing = false;
    {
      absl::MutexLock lock(&mutex_);
      if (closing_.has_value()) return;
      closing_ = status;
      outgoing_.clear();
      writing = writing_;
    }
    if (!writing) {
      Finish(ToGrpcStatus(status));
    } else if (absl::IsUnavailable(status)) {
      // The worker is silent; its unread message would keep the stream open for ever.
      context_->TryCancel();
    }
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      driver_.PostEnded(shared_from_this());
      driver_.RunHere();
      Close(absl::OkStatus());
      return;
    }
    const bool first = std::exchange(first_, false);
    if (first && !incoming_.has_hello()) {
      Close(absl::FailedPreconditionError("hello: must be the first message of a stream"));
      return;
    }
    if (first) {
      driver_.PostHello(shared_from_this(), FromProto(incoming_.hello()));
    } else {
      driver_.PostMessage(shared_from_this(), std::move(incoming_));
    }
    incoming_.Clear();
    StartRead(&incoming_);
    // After StartRead: running the event may take as long as a step is planned and sent.
    driver_.RunHere();
  }

  void OnWriteDone(bool ok) override {
    std::optional<absl::Status> end;
    {
      absl::MutexLock lock(&mutex_);
      if (!ok && !closing_.has_value()) closing_ = absl::OkStatus();
      end = closing_;
      writing_ = !end.has_value() && !outgoing_.empty();
      if (writing_) {
        current_ = std::move(outgoing_.front());
        outgoing_.pop_front();
      }
      if (!end.has_value() && !writing_) return;
    }
    if (end.has_value()) return Finish(ToGrpcStatus(*end));
    StartWrite(&current_);
  }

  void OnDone() override {
    driver_.PostEnded(shared_from_this());
    driver_.RunHere();
    num_streams_.fetch_sub(1);
    self_.reset();  // the last owner deletes this
  }

 private:
  Driver& driver_;
  grpc::CallbackServerContext* const context_;
  std::atomic<int>& num_streams_;
  std::shared_ptr<WorkerStream> self_;  // owned by gRPC until OnDone
  v1::WorkerMessage incoming_;
  bool first_ = true;

  absl::Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  v1::CoordinatorMessage current_;  // of whoever set writing_
  std::deque<v1::CoordinatorMessage> outgoing_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* ClusterService::Join(
    grpc::CallbackServerContext* context) {
  const auto stream = std::make_shared<WorkerStream>(&driver_, context, &num_streams_);
  stream->Start();
  return stream.get();
}

}  // namespace essor::coordinator
