// What communicators of all transports share: arguments are checked, errors name their place, and
// an error ends the group.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/epoch_fence.h"
#include "worker/parallel/waiting.h"

namespace essor::worker {

// One rank's place in one group.
struct GroupPlace {
  std::string name;
  uint64_t epoch = 0;
  std::vector<uint32_t> ranks;  // global rank of each member
  uint32_t index = 0;           // this member
  uint64_t max_payload_bytes = 0;
  SteadyNanos spin = 0;                     // the longest before a wait sleeps
  absl::Time deadline;                      // until SetDeadline is called
  std::shared_ptr<const EpochFence> fence;  // shared with the data plane, which may go first
};

// Owned by one engine thread, as Communicator says. A transport implements Do...(), where arguments
// are already checked, and Leave(). A derived destructor calls Leave().
class GroupMember : public Communicator {
 public:
  explicit GroupMember(GroupPlace place);

  uint32_t index() const override { return place_.index; }
  uint32_t size() const override { return static_cast<uint32_t>(place_.ranks.size()); }
  void SetDeadline(absl::Time deadline) override;

  absl::Status AllReduceSum(std::span<float> data) final;
  absl::Status AllGather(std::span<const std::byte> sent, std::span<std::byte> received) final;
  absl::Status AllToAllV(std::span<const std::byte> sent, std::span<const uint64_t> send_bytes,
                         std::span<std::byte> received,
                         std::span<const uint64_t> receive_bytes) final;
  absl::Status Broadcast(std::span<std::byte> data, uint32_t root) final;
  absl::Status Barrier() final;
  absl::Status Send(std::span<const std::byte> data, uint32_t to) final;
  absl::Status Receive(std::span<std::byte> data, uint32_t from) final;

 protected:
  // Parts of an all-to-all by member; a part's offset is the sum of the bytes before it.
  struct Parts {
    std::span<const std::byte> sent;
    std::span<const uint64_t> send_bytes;
    std::span<std::byte> received;
    std::span<const uint64_t> receive_bytes;
  };

  virtual absl::Status DoAllReduceSum(std::span<float> data) = 0;
  virtual absl::Status DoAllGather(std::span<const std::byte> sent,
                                   std::span<std::byte> received) = 0;
  virtual absl::Status DoAllToAllV(const Parts& parts) = 0;
  virtual absl::Status DoBroadcast(std::span<std::byte> data, uint32_t root) = 0;
  virtual absl::Status DoBarrier() = 0;
  virtual absl::Status DoSend(std::span<const std::byte> data, uint32_t to) = 0;
  virtual absl::Status DoReceive(std::span<std::byte> data, uint32_t from) = 0;
  // Tells the other members that this one takes part no longer. May be called more than once.
  virtual void Leave() = 0;

  const GroupPlace& place() const { return place_; }

  // `text` with group, epoch, operation and member in front: "group tp (epoch 3), all_reduce:
  // member 1 (rank 3) <text>".
  absl::Status MemberError(absl::StatusCode code, uint32_t member, const std::string& text) const;
  // DeadlineExceeded or Unavailable (abort) when waiting for `member` must end now.
  absl::Status CheckWait(SteadyNanos now, uint32_t member) const;
  SteadyNanos deadline() const { return deadline_; }
  SpinGovernor& spin_governor() { return spin_governor_; }

 private:
  template <typename Exchange>
  absl::Status Run(const char* operation, uint64_t payload_bytes, Exchange exchange);
  absl::Status CheckPayload(uint64_t payload_bytes) const;
  absl::Status CheckMember(uint32_t member, bool may_be_self) const;
  absl::Status Invalid(const std::string& text) const;
  absl::Status End(absl::Status error);

  const GroupPlace place_;
  SteadyNanos deadline_;
  SpinGovernor spin_governor_;
  const char* operation_ = "";  // the call under way, for messages
  absl::Status ended_;          // the first error
};

// Floats [begin, begin + count) of a vector, the part that one member sums.
struct FloatRange {
  size_t begin = 0;
  size_t count = 0;
};
// Splits `total` floats over `members` as evenly as whole floats go; the same on all members.
FloatRange RangeOf(size_t total, uint32_t member, uint32_t members);

// Payloads up to this many bytes are sent whole to every member; larger ones are summed in ranges,
// one per member. Two members always exchange the whole: it is the same traffic in one phase less.
inline constexpr size_t kDirectReduceBytesMax = 32 << 10;
inline bool ReducesDirectly(size_t payload_bytes, uint32_t members) {
  return members <= 2 || payload_bytes <= kDirectReduceBytesMax;
}

// A communicator of one rank: exchanges nothing.
std::unique_ptr<Communicator> MakeSoloMember(GroupPlace place);

}  // namespace essor::worker
