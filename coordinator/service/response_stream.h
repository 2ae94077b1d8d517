// The server side of one streamed answer: a bounded buffer between the driver, which must never
// wait, and a client that may read slowly. For inference_service.cc only.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/error_details.h"
#include "common/grpc_status.h"
#include "coordinator/service/request_service.h"
#include "coordinator/service/unread_buffer.h"
#include "grpcpp/grpcpp.h"

namespace essor::coordinator {

// Owned by gRPC and by the driver (as the request's sink) together; thread-safe.
template <typename Response>
class ResponseStream : public grpc::ServerWriteReactor<Response>,
                       public RequestSink,
                       public std::enable_shared_from_this<ResponseStream<Response>> {
 public:
  explicit ResponseStream(size_t max_unread_bytes) : unread_(max_unread_bytes) {}

  // `start` submits the request with this object as its sink.
  template <typename Start>
  void Begin(Start start) {
    self_ = this->shared_from_this();
    std::shared_ptr<RequestHandle> handle = start(self_);
    std::optional<absl::Status> cancelled;
    {
      absl::MutexLock lock(&mutex_);
      handle_ = handle;
      cancelled = cancelled_;
    }
    if (cancelled.has_value()) handle->Cancel(*std::move(cancelled));
  }

  void OnDone(absl::Status status) override {
    bool writing = false;
    {
      absl::MutexLock lock(&mutex_);
      if (end_.has_value()) return;
      // The request may have ended well before it heard that its answer was cut off.
      end_ = status.ok() && cancelled_.has_value() ? *cancelled_ : std::move(status);
      // An error need not wait for a client that does not read.
      if (!end_->ok()) unread_.Clear();
      writing = writing_;
      if (!writing) finished_ = true;
    }
    if (!writing) this->Finish(ToGrpcStatus(*end_));
  }

  void OnCancel() override { CancelRequest(absl::CancelledError("cancelled by the caller")); }

  void OnWriteDone(bool ok) override {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      writing_ = ok && TakeNext();
      if (!writing_) {
        finish = end_.has_value() && !finished_;
        if (finish) finished_ = true;
      }
      if (!writing_ && !finish) return;
    }
    if (finish) return this->Finish(ToGrpcStatus(*end_));
    this->StartWrite(&current_);
  }

  void OnDone() override { self_.reset(); }  // gRPC lets go; the last owner deletes

 protected:
  // Queues a message. `merge` may add it to the last one that waits instead: true when it did.
  template <typename Merge>
  void Write(Response response, Merge merge) {
    absl::Status overflow;
    {
      absl::MutexLock lock(&mutex_);
      if (end_.has_value() || cancelled_.has_value()) return;  // an answer has no holes
      if (unread_.Push(std::move(response), merge)) {
        if (writing_) return;
        writing_ = TakeNext();
      } else {
        overflow = SlowReader(unread_.max_bytes());
      }
    }
    if (overflow.ok()) return this->StartWrite(&current_);
    CancelRequest(std::move(overflow));
  }

 private:
  static absl::Status SlowReader(size_t max_unread_bytes) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat("the caller does not read its stream: more than ",
                                                  max_unread_bytes, " bytes wait")),
        "SLOW_READER");
  }

  void CancelRequest(absl::Status reason) {
    std::shared_ptr<RequestHandle> handle;
    {
      absl::MutexLock lock(&mutex_);
      if (cancelled_.has_value()) return;
      cancelled_ = reason;
      handle = handle_;
    }
    if (handle != nullptr) handle->Cancel(std::move(reason));
  }

  // Whether there is a message to send, now in current_.
  bool TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::optional<Response> next = unread_.Next();
    if (next.has_value()) current_ = *std::move(next);
    return next.has_value();
  }

  std::shared_ptr<ResponseStream> self_;  // gRPC's share
  absl::Mutex mutex_;
  std::shared_ptr<RequestHandle> handle_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> cancelled_ ABSL_GUARDED_BY(mutex_);  // why
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish() was or is being called
  UnreadBuffer<Response> unread_ ABSL_GUARDED_BY(mutex_);
  Response current_;                 // of whoever set writing_
  std::optional<absl::Status> end_;  // written once under mutex_, then constant
};

}  // namespace essor::coordinator
