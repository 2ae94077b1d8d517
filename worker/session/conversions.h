// Between the messages of essor.v1.Cluster and the worker's own structs.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "essor/v1/cluster.pb.h"
#include "worker/engine/local_ranks.h"
#include "worker/engine/step.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// InvalidArgument naming the field for malformed plan, dtype, kv_dtype or draft_layers, or when the
// worker gets no rank.
absl::StatusOr<Assignment> FromProto(const v1::Assign& assign, uint64_t worker_id);
// `ranks` as in Assign; InvalidArgument when a rank's worker is not among the members.
absl::StatusOr<EpochMembers> MembersFromProto(const v1::Assign& assign, const v1::Connect& connect);
// `now` is when the message arrived: the step's timeout counts from there.
StepInput FromProto(const v1::Step& step, absl::Time now);
void ToProto(const StepOutput& output, uint64_t epoch, v1::StepResult* result);
void ToProto(const DataEndpoint& endpoint, v1::DataEndpoint* proto);

// When a rank failed: while weights were loaded and exchanges formed, or in a step.
enum class Failed { kForming, kStep };
// Whether assigning the same again would fail again. Never after a failed step: the next epoch
// begins without sequences.
bool IsFatal(const absl::Status& status, Failed failed);

}  // namespace essor::worker
