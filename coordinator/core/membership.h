// Which workers there are, which ranks they hold, and how they become an instance.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "model/plan/kv_kinds.h"

namespace essor::coordinator {

// Where a worker's data plane is reached (see cluster.proto, DataEndpoint).
struct DataEndpoint {
  std::string host_key;
  std::string shm_name;
  std::string tcp_address;
};

// What a worker says of itself when it joins.
struct WorkerDescription {
  std::string build;
  std::string incarnation;  // random per process start
  std::string host;
  int64_t pid = 0;
  uint32_t num_devices = 0;   // ranks it can hold
  uint64_t memory_bytes = 0;  // shared evenly by its ranks
  DataEndpoint data;
  std::string held_weights;  // weights_key of the slices it still holds, or empty
  uint64_t last_epoch = 0;   // highest it was assigned, by an earlier coordinator perhaps
};

struct RankPlacement {
  uint32_t rank = 0;
  WorkerId worker;
  uint32_t device = 0;  // within the worker
};

// A worker's part in one epoch.
struct Assignment {
  std::vector<RankPlacement> ranks;  // of the whole instance
  model::KvCapacity capacity;
  std::string weights_key;
  uint32_t local_index = 0;  // among the instance's workers of one host
  uint32_t local_count = 1;
};

// What Membership wants done. Sends go to the named worker's stream in the order given.
struct SendAssign {
  WorkerId worker;
  Epoch epoch;
  Assignment assignment;
};
struct SendConnect {
  WorkerId worker;
  Epoch epoch;
  std::vector<std::pair<WorkerId, DataEndpoint>> members;
};
struct SendRelease {
  WorkerId worker;
  Epoch epoch;
  std::string reason;
};
struct SendShutdown {  // the worker wanted to leave and nothing needs it any more
  WorkerId worker;
};
struct CloseWorker {  // end the stream with this status; the worker is forgotten already
  WorkerId worker;
  absl::Status status;
};
struct EpochReady {  // steps can be served
  Epoch epoch;
  model::KvCapacity capacity;
};
struct EpochLost {  // steps of this epoch, which was ready, can no longer be served
  Epoch epoch;
  absl::Status reason;  // Unavailable
};
struct InstanceFailed {  // trying again would fail again
  absl::Status reason;
};
using MembershipAction = std::variant<SendAssign, SendConnect, SendRelease, SendShutdown,
                                      CloseWorker, EpochReady, EpochLost, InstanceFailed>;

// A pure state machine: no clock, thread or socket. Thread-compatible.
//
// Each of `num_workers` places holds a contiguous range of ranks. A worker takes a free place when
// it joins (the one whose weights it holds, where there is one); workers beyond that are spares.
// State of the instance:
//   kWaiting -> kLoading when every place is taken (Assign sent)
//   kLoading -> kConnecting when every member has loaded (Connect sent)
//   kConnecting -> kReady when every member is ready
//   any of the last three -> kReleasing when a member is lost or a rank fails (Release sent)
//   kReleasing -> kWaiting when every member left has released its part
// A worker keeps its place as long as its stream lives, so that a replacement for a lost one is all
// that an instance needs, and nobody else loads weights again.
//
// Every method appends to `actions` what follows from the event. A status that is not OK means that
// this worker broke the protocol: the caller closes its stream with it and calls Lost().
class Membership {
 public:
  // KV blocks that fit a rank given the memory it may use; an error names what is missing.
  using CapacityOf =
      std::function<absl::StatusOr<model::KvCapacity>(uint32_t rank, uint64_t memory_bytes)>;

  struct Options {
    uint32_t num_workers = 1;
    uint32_t num_ranks = 1;  // >= num_workers
    std::string build;
    // Equal for two formations exactly when every rank holds the same bytes in both.
    std::string weights_prefix;
    CapacityOf capacity;
    absl::Duration heartbeat_timeout = absl::Milliseconds(1500);
    absl::Duration load_timeout = absl::Minutes(5);  // without any progress
    absl::Duration connect_timeout = absl::Seconds(30);
    absl::Duration release_timeout = absl::Seconds(10);
    uint32_t max_spares = 64;
  };
  enum class State { kWaiting, kLoading, kConnecting, kReady, kReleasing };

  struct Member {
    WorkerDescription description{};
    std::optional<uint32_t> place{};
    absl::Time heard{};
    absl::Time phase_since{};  // last step forward in the current phase
    // With the current phase: loaded, ready or released. True for who has no part in it.
    bool done = true;
    bool leaving = false;
    Epoch assigned{};                     // the last epoch it was given ranks in
    std::vector<double> load_fraction{};  // per rank of its place
    uint64_t weight_bytes = 0;
    uint64_t kv_bytes = 0;
  };

  explicit Membership(Options options);

  // FailedPrecondition naming the field for another build, too few devices or too little memory;
  // ResourceExhausted when there are too many spares. A second join of the same incarnation
  // replaces the first.
  absl::StatusOr<WorkerId> Join(WorkerDescription description, absl::Time now,
                                std::vector<MembershipAction>* actions);
  // The stream of a worker has ended. Unknown workers are ignored.
  void Lost(WorkerId worker, const std::string& reason, absl::Time now,
            std::vector<MembershipAction>* actions);
  // Any message of the worker has arrived.
  void Heard(WorkerId worker, absl::Time now);

  // Messages about an epoch; one about an old epoch is ignored.
  absl::Status LoadProgress(WorkerId worker, Epoch epoch, const std::vector<uint32_t>& ranks,
                            const std::vector<double>& fractions, absl::Time now);
  absl::Status Loaded(WorkerId worker, Epoch epoch, uint64_t weight_bytes, uint64_t kv_bytes,
                      absl::Time now, std::vector<MembershipAction>* actions);
  absl::Status Ready(WorkerId worker, Epoch epoch, absl::Time now,
                     std::vector<MembershipAction>* actions);
  absl::Status Released(WorkerId worker, Epoch epoch, absl::Time now,
                        std::vector<MembershipAction>* actions);
  // A rank of the worker cannot go on. FailedPrecondition (this worker's model or build differs)
  // costs the worker its stream; another fatal failure ends the instance.
  absl::Status RankFailed(WorkerId worker, Epoch epoch, uint32_t rank, const absl::Status& failure,
                          bool fatal, absl::Time now, std::vector<MembershipAction>* actions);
  // The worker was asked to stop. It is told to shut down at once unless it serves; then `Drained`
  // lets it go. A worker that leaves is given no further part.
  void Leaving(WorkerId worker, std::vector<MembershipAction>* actions);
  // Whether a member of the ready epoch wants to leave: running requests may finish, new ones must
  // wait for the next epoch.
  bool leaving() const;
  // No request is alive: members that want to leave may go.
  void Drained(std::vector<MembershipAction>* actions);
  // Gives the epoch up although nobody reported a failure, for example after a step's deadline.
  void AbandonEpoch(const std::string& reason, absl::Time now,
                    std::vector<MembershipAction>* actions);
  // Finds silent and stuck workers. Call at least every fifth of the heartbeat timeout.
  void Tick(absl::Time now, std::vector<MembershipAction>* actions);

  State state() const { return state_; }
  Epoch epoch() const { return epoch_; }
  // One sentence: "waiting for 1 of 2 workers".
  std::string Detail() const;
  const std::map<WorkerId, Member>& members() const { return members_; }
  // First and one past the last rank of a place.
  std::pair<uint32_t, uint32_t> RanksOf(uint32_t place) const;
  std::optional<WorkerId> WorkerOfRank(uint32_t rank) const;

 private:
  std::string WeightsKey(uint32_t place) const;
  uint32_t PlaceOfRank(uint32_t rank) const;
  std::optional<uint32_t> ChoosePlace(const std::string& held_weights) const;
  absl::Status CheckDescription(const WorkerDescription& description,
                                std::optional<uint32_t> place) const;
  absl::StatusOr<Member*> Current(WorkerId worker, Epoch epoch, State expected,
                                  const char* message);
  void MaybeForm(absl::Time now, std::vector<MembershipAction>* actions);
  Assignment AssignmentOf(uint32_t place) const;
  void EnterPhase(State state, absl::Time now);
  bool AllDone() const;
  void ReleaseEpoch(const std::string& reason, absl::Time now,
                    std::vector<MembershipAction>* actions);
  void FinishRelease(absl::Time now, std::vector<MembershipAction>* actions);

  const Options options_;
  State state_ = State::kWaiting;
  Epoch epoch_;
  uint64_t highest_epoch_seen_ = 0;  // by any worker, under earlier coordinators too
  uint64_t next_worker_ = 1;
  std::map<WorkerId, Member> members_;            // with streams alive
  std::vector<std::optional<WorkerId>> places_;   // [num_workers]
  model::KvCapacity capacity_;                    // of the current epoch
  uint32_t failed_formations_ = 0;                // in a row
  absl::Time form_after_ = absl::InfinitePast();  // backoff after failed formations
};

}  // namespace essor::coordinator
