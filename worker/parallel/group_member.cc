#include "worker/parallel/group_member.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

// Sum of `parts`, or `limit` + 1 when it is larger than `limit`.
uint64_t BoundedSum(std::span<const uint64_t> parts, uint64_t limit) {
  uint64_t sum = 0;
  for (const uint64_t part : parts) {
    if (part > limit - sum) return limit + 1;
    sum += part;
  }
  return sum;
}

class SoloMember : public GroupMember {
 public:
  using GroupMember::GroupMember;
  std::string transport() const override { return "shm"; }

 protected:
  absl::Status DoAllReduceSum(std::span<float>) override { return absl::OkStatus(); }
  absl::Status DoAllGather(std::span<const std::byte> sent,
                           std::span<std::byte> received) override {
    if (!sent.empty()) std::memmove(received.data(), sent.data(), sent.size());
    return absl::OkStatus();
  }
  absl::Status DoAllToAllV(const Parts& parts) override {
    return DoAllGather(parts.sent, parts.received);
  }
  absl::Status DoBroadcast(std::span<std::byte>, uint32_t) override { return absl::OkStatus(); }
  absl::Status DoBarrier() override { return absl::OkStatus(); }
  // Unreachable: there is no other member to name.
  absl::Status DoSend(std::span<const std::byte>, uint32_t) override { return absl::OkStatus(); }
  absl::Status DoReceive(std::span<std::byte>, uint32_t) override { return absl::OkStatus(); }
  void Leave() override {}
};

}  // namespace

GroupMember::GroupMember(GroupPlace place)
    : place_(std::move(place)),
      deadline_(absl::ToUnixNanos(place_.deadline)),
      spin_governor_(place_.spin) {}

void GroupMember::SetDeadline(absl::Time deadline) { deadline_ = absl::ToUnixNanos(deadline); }

template <typename Exchange>
absl::Status GroupMember::Run(const char* operation, uint64_t payload_bytes, Exchange exchange) {
  if (!ended_.ok()) return ended_;
  operation_ = operation;
  absl::Status status = place_.fence->Check(place_.epoch);
  if (status.ok()) status = CheckPayload(payload_bytes);
  if (status.ok()) status = exchange();
  if (status.ok()) return status;
  return End(std::move(status));
}

absl::Status GroupMember::End(absl::Status error) {
  ended_ = error;
  Leave();
  return error;
}

absl::Status GroupMember::AllReduceSum(std::span<float> data) {
  return Run("all_reduce", data.size_bytes(), [&] { return DoAllReduceSum(data); });
}

absl::Status GroupMember::AllGather(std::span<const std::byte> sent,
                                    std::span<std::byte> received) {
  return Run("all_gather", sent.size(), [&] {
    if (received.size() != sent.size() * size()) {
      return Invalid(
          absl::StrFormat("%d bytes for %d parts of %d", received.size(), size(), sent.size()));
    }
    return DoAllGather(sent, received);
  });
}

absl::Status GroupMember::AllToAllV(std::span<const std::byte> sent,
                                    std::span<const uint64_t> send_bytes,
                                    std::span<std::byte> received,
                                    std::span<const uint64_t> receive_bytes) {
  return Run("all_to_all", sent.size(), [&] {
    if (send_bytes.size() != size() || receive_bytes.size() != size()) {
      return Invalid(absl::StrFormat("%d and %d part sizes for %d members", send_bytes.size(),
                                     receive_bytes.size(), size()));
    }
    if (BoundedSum(send_bytes, sent.size()) != sent.size() ||
        BoundedSum(receive_bytes, received.size()) != received.size()) {
      return Invalid(
          absl::StrFormat("part sizes do not add up to the %d bytes sent and %d received",
                          sent.size(), received.size()));
    }
    if (send_bytes[index()] != receive_bytes[index()]) {
      return Invalid(absl::StrFormat("%d bytes sent to itself but %d received", send_bytes[index()],
                                     receive_bytes[index()]));
    }
    return DoAllToAllV({sent, send_bytes, received, receive_bytes});
  });
}

absl::Status GroupMember::Broadcast(std::span<std::byte> data, uint32_t root) {
  return Run("broadcast", data.size(), [&]() -> absl::Status {
    ESSOR_RETURN_IF_ERROR(CheckMember(root, /*may_be_self=*/true));
    return DoBroadcast(data, root);
  });
}

absl::Status GroupMember::Barrier() {
  return Run("barrier", 0, [&] { return DoBarrier(); });
}

absl::Status GroupMember::Send(std::span<const std::byte> data, uint32_t to) {
  return Run("send", data.size(), [&]() -> absl::Status {
    ESSOR_RETURN_IF_ERROR(CheckMember(to, /*may_be_self=*/false));
    return DoSend(data, to);
  });
}

absl::Status GroupMember::Receive(std::span<std::byte> data, uint32_t from) {
  return Run("receive", data.size(), [&]() -> absl::Status {
    ESSOR_RETURN_IF_ERROR(CheckMember(from, /*may_be_self=*/false));
    return DoReceive(data, from);
  });
}

absl::Status GroupMember::CheckPayload(uint64_t payload_bytes) const {
  if (payload_bytes <= place_.max_payload_bytes) return absl::OkStatus();
  return Invalid(absl::StrFormat("payload of %d bytes, but the group was formed for at most %d",
                                 payload_bytes, place_.max_payload_bytes));
}

absl::Status GroupMember::CheckMember(uint32_t member, bool may_be_self) const {
  if (member < size() && (may_be_self || member != index())) return absl::OkStatus();
  return Invalid(absl::StrFormat("member %d, seen from member %d of %d", member, index(), size()));
}

absl::Status GroupMember::Invalid(const std::string& text) const {
  return absl::InvalidArgumentError(
      absl::StrFormat("group %s (epoch %d), %s: %s", place_.name, place_.epoch, operation_, text));
}

absl::Status GroupMember::MemberError(absl::StatusCode code, uint32_t member,
                                      const std::string& text) const {
  return absl::Status(
      code, absl::StrFormat("group %s (epoch %d), %s: member %d (rank %d) %s", place_.name,
                            place_.epoch, operation_, member, place_.ranks[member], text));
}

absl::Status GroupMember::CheckWait(SteadyNanos now, uint32_t member) const {
  if (place_.fence->IsAborted(place_.epoch)) {
    const absl::Status aborted = place_.fence->Check(place_.epoch);
    return MemberError(absl::StatusCode::kUnavailable, member,
                       absl::StrCat("was waited for; ", aborted.message()));
  }
  if (now < deadline_) return absl::OkStatus();
  return MemberError(absl::StatusCode::kDeadlineExceeded, member, "did not come in time");
}

FloatRange RangeOf(size_t total, uint32_t member, uint32_t members) {
  const size_t whole = total / members;
  const size_t rest = total % members;
  const size_t begin = whole * member + std::min<size_t>(member, rest);
  return {.begin = begin, .count = whole + (member < rest ? 1 : 0)};
}

std::unique_ptr<Communicator> MakeSoloMember(GroupPlace place) {
  return std::make_unique<SoloMember>(std::move(place));
}

}  // namespace essor::worker
