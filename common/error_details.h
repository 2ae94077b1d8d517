// What an error says beyond code and message, without protobuf: which field is wrong, when to try
// again, a machine-readable reason. Kept as absl::Status payloads; common/grpc_status.h turns them
// into google.rpc details, the HTTP adapter into headers and OpenAI fields.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace essor {

// InvalidArgument about one request field. `field` is its path in the request, for example
// "sampling.temperature"; the message begins with it.
absl::Status FieldError(const std::string& field, const std::string& description);
// `status` with the path of the field that caused it.
absl::Status WithField(absl::Status status, const std::string& field);
// Empty when the status names no field.
std::string FieldOf(const absl::Status& status);

// When a retry makes sense; for ResourceExhausted and Unavailable.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

// UPPER_SNAKE_CASE, for example "CONTEXT_LENGTH_EXCEEDED".
absl::Status WithReason(absl::Status status, const std::string& reason);
std::string ReasonOf(const absl::Status& status);

}  // namespace essor
