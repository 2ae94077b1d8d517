#include "common/grpc_status.h"

#include "common/error_details.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace essor {
namespace {

// Every detail survives the way over the wire and back.
TEST(GrpcStatusTest, CarriesFieldRetryDelayAndReason) {
  absl::Status status = FieldError("sampling.temperature", "must be within 0 and 2");
  status = WithRetryDelay(status, absl::Milliseconds(1500));
  status = WithReason(status, "SOME_REASON");
  const grpc::Status wire = ToGrpcStatus(status);
  EXPECT_EQ(wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(wire.error_message(), "sampling.temperature: must be within 0 and 2");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  EXPECT_EQ(details.details_size(), 3);
  EXPECT_EQ(details.code(), 3);

  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(back.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(back), "sampling.temperature");
  EXPECT_EQ(RetryDelayOf(back), absl::Milliseconds(1500));
  EXPECT_EQ(ReasonOf(back), "SOME_REASON");
}

TEST(GrpcStatusTest, PlainStatusHasNoDetails) {
  const grpc::Status wire = ToGrpcStatus(absl::NotFoundError("no such model"));
  EXPECT_TRUE(wire.error_details().empty());
  EXPECT_EQ(FromGrpcStatus(wire), absl::NotFoundError("no such model"));
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

// A peer may send anything as details.
TEST(GrpcStatusTest, MalformedDetailsAreIgnored) {
  const grpc::Status wire(grpc::StatusCode::UNAVAILABLE, "gone", "\xff\xff not a protobuf");
  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(back.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(FieldOf(back), "");
  EXPECT_FALSE(RetryDelayOf(back).has_value());
}

}  // namespace
}  // namespace essor
