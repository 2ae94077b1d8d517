// The requests behind one HTTP call, and the way of their results from the driver to the
// connection's coroutine.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "coordinator/http/asio.h"
#include "coordinator/http/completion_answer.h"
#include "coordinator/service/request_service.h"

namespace essor::coordinator {

// Owned by the connection and by the sinks of its requests together. Start, Pop and the destructor
// belong to the connection; the rest is thread-safe.
class CompletionCall : public std::enable_shared_from_this<CompletionCall> {
 public:
  using Item = CompletionItem;

  // `context` is kept alive for sinks that outlive the server; `executor` is the connection's. A
  // client that leaves more than `max_unread_bytes` unread is cut off.
  CompletionCall(std::shared_ptr<net::io_context> context, net::any_io_executor executor,
                 size_t max_unread_bytes);

  void Start(RequestService* service, std::vector<GenerateParams> prompts);
  // Waits for results; never empty. After Disconnect() an item that is done with Cancelled.
  net::awaitable<std::vector<Item>> Pop();
  // Ends all requests that still run.
  void Cancel(const absl::Status& reason);
  // The client is gone: ends the requests and wakes Pop().
  void Disconnect();

 private:
  class Sink;
  void Push(Item item);
  void Wake();

  const std::shared_ptr<net::io_context> context_;
  const net::any_io_executor executor_;
  net::steady_timer wake_;  // of the connection's executor
  const size_t max_unread_bytes_;
  absl::Mutex mutex_;
  std::vector<Item> items_ ABSL_GUARDED_BY(mutex_);
  size_t unread_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<RequestHandle>> handles_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> cancelled_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace essor::coordinator
