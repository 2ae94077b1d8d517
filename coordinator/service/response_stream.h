// The server side of one streamed answer: a bounded buffer between the driver, which must never
// wait, and a client that may read slowly. For inference_service.cc only.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/error_details.h"
#include "common/grpc_status.h"
#include "coordinator/service/request_service.h"
#include "grpcpp/grpcpp.h"

namespace essor::coordinator {

// Owned by gRPC and by the driver (as the request's sink) together; thread-safe.
template <typename Response>
class ResponseStream : public grpc::ServerWriteReactor<Response>,
                       public RequestSink,
                       public std::enable_shared_from_this<ResponseStream<Response>> {
 public:
  // `start` submits the request with this object as its sink.
  template <typename Start>
  void Begin(size_t max_unread_bytes, Start start) {
    max_unread_bytes_ = max_unread_bytes;
    self_ = this->shared_from_this();
    std::shared_ptr<RequestHandle> handle = start(self_);
    bool cancelled = false;
    {
      absl::MutexLock lock(&mutex_);
      handle_ = handle;
      cancelled = cancelled_;
    }
    if (cancelled) handle->Cancel();
  }

  void OnDone(absl::Status status) override {
    bool writing = false;
    {
      absl::MutexLock lock(&mutex_);
      if (end_.has_value()) return;
      end_ = std::move(status);
      // An error need not wait for a client that does not read.
      if (!end_->ok()) unread_.clear();
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
      unread_bytes_ -= std::min(unread_bytes_, current_.ByteSizeLong());
      writing_ = ok && !unread_.empty();
      if (writing_) {
        current_ = std::move(unread_.front());
        unread_.pop_front();
      } else {
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
    bool overflow = false;
    {
      absl::MutexLock lock(&mutex_);
      if (end_.has_value()) return;
      const size_t bytes = response.ByteSizeLong();
      if (writing_) {
        unread_bytes_ += bytes;
        overflow = unread_bytes_ > max_unread_bytes_;
        if (!overflow && (unread_.empty() || !merge(&unread_.back(), response))) {
          unread_.push_back(std::move(response));
        }
        if (!overflow) return;
      } else {
        unread_bytes_ = bytes;
        writing_ = true;
        current_ = std::move(response);
      }
    }
    if (!overflow) return this->StartWrite(&current_);
    const absl::Status status = WithReason(
        absl::ResourceExhaustedError(absl::StrCat("the caller does not read its stream: more than ",
                                                  max_unread_bytes_, " bytes wait")),
        "SLOW_READER");
    CancelRequest(status);
  }

 private:
  void CancelRequest(absl::Status reason) {
    std::shared_ptr<RequestHandle> handle;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      handle = handle_;
    }
    if (handle != nullptr) handle->Cancel(std::move(reason));
  }

  size_t max_unread_bytes_ = 0;
  std::shared_ptr<ResponseStream> self_;  // gRPC's share
  absl::Mutex mutex_;
  std::shared_ptr<RequestHandle> handle_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish() was or is being called
  std::deque<Response> unread_ ABSL_GUARDED_BY(mutex_);
  size_t unread_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Response current_;                 // of whoever set writing_
  std::optional<absl::Status> end_;  // written once under mutex_, then constant
};

}  // namespace essor::coordinator
