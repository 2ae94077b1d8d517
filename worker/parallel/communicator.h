// Exchanges between the ranks of one epoch.
//
// Every absl::Time here is a point of Clock::Steady() (common/clock.h), not of absl::Now().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace essor::worker {

// A group of ranks. Members are numbered 0 .. size()-1 in the order of the group's rank list; all
// members call the same collectives in the same order with equal sizes. Owned and called by the
// rank's engine thread. Every call waits at most until its group's deadline (set per step):
// DeadlineExceeded then, Unavailable when a member's process is gone or the epoch was aborted; both
// name the group, the operation and the member waited for. InvalidArgument when a size does not fit
// the arguments or exceeds what Connect was told, Internal when members disagree about the call or
// a member's bytes make no sense. After any error the group is dead: all later calls, here and on
// the other members, fail.
//
// Reductions add contributions in the order of member numbers, whatever the arrival order or
// transport, so all members get the same bits and a replay gets them again.
class Communicator {
 public:
  static constexpr uint64_t kBufferedSendBytes = 64 << 10;
  static constexpr uint64_t kBufferedBytesPerSend = 1 << 10;

  virtual ~Communicator() = default;
  virtual uint32_t index() const = 0;
  virtual uint32_t size() const = 0;
  // "shm", "tcp" or "mixed"; for logs and metrics.
  virtual std::string transport() const = 0;

  // For all following calls; until the first call of it, the deadline given to Connect holds.
  virtual void SetDeadline(absl::Time deadline) = 0;

  virtual absl::Status AllReduceSum(std::span<float> data) = 0;
  // `received` is size() x sent.size() bytes, member i's part at i x sent.size().
  virtual absl::Status AllGather(std::span<const std::byte> sent,
                                 std::span<std::byte> received) = 0;
  // Part i of `sent` (send_bytes[i] long, consecutive) goes to member i; receive_bytes likewise.
  virtual absl::Status AllToAllV(std::span<const std::byte> sent,
                                 std::span<const uint64_t> send_bytes,
                                 std::span<std::byte> received,
                                 std::span<const uint64_t> receive_bytes) = 0;
  virtual absl::Status Broadcast(std::span<std::byte> data, uint32_t root) = 0;
  virtual absl::Status Barrier() = 0;
  // Ordered per pair of members; Send may return before the receiver has it, or wait until the
  // receiver takes it. It does not wait while what it has sent to that member, and the member has
  // not yet taken, is at most kBufferedSendBytes, with kBufferedBytesPerSend added to the data of
  // each call. Both members must place the pair between the same two collectives of this group.
  virtual absl::Status Send(std::span<const std::byte> data, uint32_t to) = 0;
  virtual absl::Status Receive(std::span<std::byte> data, uint32_t from) = 0;
};

// How other processes reach this one's data plane (proto: DataEndpoint).
struct DataEndpoint {
  std::string host_key;     // equal where memory can be shared; empty: never
  std::string shm_name;     // abstract Unix socket that hands over memory; empty: none
  std::string tcp_address;  // ip:port, [ip]:port for IPv6
};

// Where each rank of an epoch lives. The same on every member.
struct EpochMembers {
  uint64_t epoch = 0;
  struct Member {
    uint64_t worker_id = 0;  // ranks of one worker share a process
    DataEndpoint endpoint;
  };
  std::vector<Member> ranks;  // index = global rank
};

// The groups one rank takes part in, in an order equal on all members of each group. A group of one
// rank is allowed and exchanges nothing.
struct GroupSpec {
  std::string name;             // for errors: "tp", "stage", "pp"
  std::vector<uint32_t> ranks;  // global ranks, equal on all members
};

// The data plane of one worker process: its sockets and shared memory. Thread-safe.
class DataPlane {
 public:
  struct Options {
    // Where TCP peers reach this worker (not a wildcard); the port is chosen.
    std::string listen_ip = "127.0.0.1";
    // Upper bound for max_payload_bytes of Connect.
    uint64_t max_message_bytes = 64 << 20;
    // False: use TCP even between ranks of one host.
    bool allow_shared_memory = true;
  };
  static absl::StatusOr<std::unique_ptr<DataPlane>> Create(const Options& options);
  virtual ~DataPlane() = default;

  virtual DataEndpoint endpoint() const = 0;

  // Forms the groups of global rank `rank`; called once per local rank and epoch, concurrently from
  // their threads. Returns one communicator per entry of `groups`; (name, ranks) must not repeat.
  // `max_payload_bytes`, equal on all members, is the most one member contributes to one call (the
  // whole of `data` or `sent`); buffers are allocated here and never later.
  //
  // DeadlineExceeded names the ranks that did not come. Unavailable: the epoch was aborted or
  // fenced by a newer one. InvalidArgument: groups or sizes that make no sense. Forming a new epoch
  // fences all older ones: their late connections are refused.
  virtual absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(
      const EpochMembers& members, uint32_t rank, const std::vector<GroupSpec>& groups,
      uint64_t max_payload_bytes, absl::Time deadline) = 0;

  // Wakes everything that waits in `epoch` or an older one with Unavailable(reason); later calls on
  // those communicators fail at once. Returns without waiting.
  virtual void Abort(uint64_t epoch, const std::string& reason) = 0;
};

}  // namespace essor::worker
