// The only place that converts between absl::Status and grpc::Status.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace essor {

// Code and message carry over; field, retry delay and reason (common/error_details.h) become
// google.rpc.BadRequest, RetryInfo and ErrorInfo in the status details, where every gRPC client
// library finds them.
grpc::Status ToGrpcStatus(const absl::Status& status);
// The reverse; malformed details are ignored.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace essor
