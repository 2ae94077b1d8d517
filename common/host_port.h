// Addresses as flags give them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace essor {

struct HostPort {
  std::string host;  // without the brackets of a v6 address
  uint16_t port = 0;
};
// "host:port" or "[v6]:port"; InvalidArgument for anything else.
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

}  // namespace essor
