// Liveness, readiness and metrics of a worker over HTTP, for probes and scrapers on the same node.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace essor::worker {

// Answers GET /livez, /readyz and /metrics; 404 for other paths, 405 for other methods. One thread;
// a connection may take 5 s and carries one request with at most 8 KiB of header.
class HealthServer {
 public:
  struct Content {
    std::function<bool()> ready;           // whether /readyz is 200
    std::function<std::string()> metrics;  // Prometheus text
  };
  // "ip:port"; port 0 chooses one. Unavailable naming the address when it is in use,
  // InvalidArgument when it is malformed.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(const std::string& address,
                                                             Content content);
  virtual ~HealthServer() = default;
  virtual uint16_t port() const = 0;
};

}  // namespace essor::worker
