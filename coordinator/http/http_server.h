// The OpenAI-compatible HTTP front end, with health and metrics.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/service/coordinator_metrics.h"
#include "coordinator/service/request_service.h"

namespace essor::coordinator {

// HTTP/1.1 on its own event-loop threads. Thread-safe.
class HttpServer {
 public:
  struct Options {
    std::string address;  // host:port; port 0 = a free one
    int num_threads = 2;
    size_t max_body_bytes = 64 << 20;
    size_t max_connections = 16384;
    absl::Duration request_timeout = absl::Seconds(60);  // for a request to arrive whole
    absl::Duration write_timeout = absl::Seconds(60);    // without any progress in writing
    size_t max_unread_bytes = 256 << 10;                 // of a stream whose client does not read
  };

  // Listens as soon as it exists; `service` and `metrics` are borrowed and must outlive it.
  // Unavailable naming the address when it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options,
                                                           RequestService* service,
                                                           CoordinatorMetrics* metrics);
  virtual ~HttpServer() = default;

  // The address with the chosen port.
  virtual const std::string& address() const = 0;
  // Closes listener and connections and joins the threads. Requests should have ended before, so
  // that their clients have been told.
  virtual void Shutdown() = 0;
};

}  // namespace essor::coordinator
