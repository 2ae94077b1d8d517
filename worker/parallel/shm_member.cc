#include "worker/parallel/shm_member.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "worker/parallel/ordered_sum.h"

namespace essor::worker {
namespace {

// Pieces in which a message passes through a ring, so that the receiver copies while the sender
// does.
constexpr uint32_t kRingPieceBytes = 64 << 10;
// Turns of a spin between two looks at the clock.
constexpr int kPausesPerLook = 16;

// a - b of numbers modulo 2^32 that are close to each other.
int32_t Ahead(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b); }

class ShmMember : public GroupMember {
 public:
  ShmMember(GroupPlace place, std::shared_ptr<Segment> own, std::vector<ShmPeer> peers)
      : GroupMember(std::move(place)),
        own_(std::move(own)),
        peers_(std::move(peers)),
        seen_(peers_.size(), 0),
        sources_(peers_.size(), nullptr) {}
  ~ShmMember() override { ShmMember::Leave(); }

  std::string transport() const override { return "shm"; }

 protected:
  absl::Status DoAllReduceSum(std::span<float> data) override;
  absl::Status DoAllGather(std::span<const std::byte> sent, std::span<std::byte> received) override;
  absl::Status DoAllToAllV(const Parts& parts) override;
  absl::Status DoBroadcast(std::span<std::byte> data, uint32_t root) override;
  absl::Status DoBarrier() override;
  absl::Status DoSend(std::span<const std::byte> data, uint32_t to) override;
  absl::Status DoReceive(std::span<std::byte> data, uint32_t from) override;
  void Leave() override;

 private:
  // An exchange: Begin() gives the number, the caller fills payload(number), Announce() shows it,
  // Await(member) makes that member's payload(number) readable until the next exchange's end.
  absl::StatusOr<uint32_t> Begin();
  void Announce(uint32_t number, Operation operation, uint64_t bytes);
  absl::Status Await(uint32_t member, uint32_t number, Operation operation, uint64_t bytes);
  absl::Status AwaitAll(uint32_t number, Operation operation, uint64_t bytes);

  absl::Status ReduceInRanges(std::span<float> data);
  // Waits until `member` has announced at least `number`.
  absl::Status AwaitNumber(uint32_t member, uint32_t number);
  // Waits until `word`, of `member`'s segment, is no longer `value`; returns what it is then.
  absl::StatusOr<uint32_t> AwaitChange(const std::atomic<uint32_t>& word, uint32_t value,
                                       uint32_t member);
  absl::StatusOr<uint32_t> SleepUntilChange(const std::atomic<uint32_t>& word, uint32_t value,
                                            uint32_t member);
  absl::Status CheckPeersAlive(uint32_t waited_for) const;
  bool HasLeft(uint32_t member) const;
  // After `word` of the own segment was stored: wakes `peer` if it sleeps on this member.
  void WakeIfAsleep(uint32_t peer, const std::atomic<uint32_t>& word) const;

  absl::Status WriteRing(uint32_t to, std::span<const std::byte> data);
  absl::Status ReadRing(uint32_t from, std::span<std::byte> data);

  const std::shared_ptr<Segment> own_;
  const std::vector<ShmPeer> peers_;
  uint32_t number_ = 0;                // of the last exchange begun
  std::vector<uint32_t> seen_;         // last announcement seen of each member
  std::vector<const float*> sources_;  // scratch of one reduction
};

absl::StatusOr<uint32_t> ShmMember::Begin() {
  // See segment.h: everybody must have finished exchange number_ - 1 before its slot is reused.
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index() || Ahead(seen_[member], number_) >= 0) continue;
    ESSOR_RETURN_IF_ERROR(AwaitNumber(member, number_));
  }
  return ++number_;
}

void ShmMember::Announce(uint32_t number, Operation operation, uint64_t bytes) {
  Announcement& announcement = own_->announcement();
  Announcement::Record& record = announcement.records[number & 1];
  record.operation.store(static_cast<uint32_t>(operation), std::memory_order_relaxed);
  record.bytes.store(bytes, std::memory_order_relaxed);
  announcement.sequence.store(number, std::memory_order_seq_cst);
  for (uint32_t member = 0; member < size(); ++member) {
    if (member != index()) WakeIfAsleep(member, announcement.sequence);
  }
}

void ShmMember::WakeIfAsleep(uint32_t peer, const std::atomic<uint32_t>& word) const {
  const uint32_t sleeping_on = peers_[peer].segment->sleeping_on().load(std::memory_order_seq_cst);
  if (sleeping_on == index() + 1) FutexWake(word);
}

absl::Status ShmMember::AwaitNumber(uint32_t member, uint32_t number) {
  const std::atomic<uint32_t>& word = peers_[member].segment->announcement().sequence;
  uint32_t value = word.load(std::memory_order_acquire);
  while (Ahead(value, number) < 0) {
    ESSOR_ASSIGN_OR_RETURN(value, AwaitChange(word, value, member));
  }
  // A member can be one exchange ahead of what this one has announced, never two.
  if (Ahead(value, number_) > 1) {
    return MemberError(
        absl::StatusCode::kInternal, member,
        absl::StrFormat("announced exchange %d while this member is in %d", value, number_));
  }
  seen_[member] = value;
  return absl::OkStatus();
}

absl::Status ShmMember::Await(uint32_t member, uint32_t number, Operation operation,
                              uint64_t bytes) {
  ESSOR_RETURN_IF_ERROR(AwaitNumber(member, number));
  const Announcement::Record& record = peers_[member].segment->announcement().records[number & 1];
  const FrameHeader came{
      .operation = static_cast<Operation>(record.operation.load(std::memory_order_relaxed)),
      .call = number,
      .bytes = record.bytes.load(std::memory_order_relaxed)};
  const FrameHeader expected{.operation = operation, .call = number, .bytes = bytes};
  if (came == expected) return absl::OkStatus();
  const absl::Status difference = CheckFrame(came, expected);
  return MemberError(difference.code(), member, std::string(difference.message()));
}

absl::Status ShmMember::AwaitAll(uint32_t number, Operation operation, uint64_t bytes) {
  for (uint32_t member = 0; member < size(); ++member) {
    if (member != index()) ESSOR_RETURN_IF_ERROR(Await(member, number, operation, bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> ShmMember::AwaitChange(const std::atomic<uint32_t>& word, uint32_t value,
                                                uint32_t member) {
  const SteadyNanos start = SteadyNow();
  const SteadyNanos spin = spin_governor().NextSpin();
  for (SteadyNanos now = start; now - start < spin; now = SteadyNow()) {
    ESSOR_RETURN_IF_ERROR(CheckWait(now, member));
    for (int i = 0; i < kPausesPerLook; ++i) {
      const uint32_t current = word.load(std::memory_order_acquire);
      if (current != value) {
        spin_governor().Report(/*arrived=*/true);
        return current;
      }
      SpinPause();
    }
  }
  spin_governor().Report(/*arrived=*/false);
  own_->sleeping_on().store(member + 1, std::memory_order_seq_cst);
  absl::StatusOr<uint32_t> result = SleepUntilChange(word, value, member);
  own_->sleeping_on().store(0, std::memory_order_relaxed);
  return result;
}

absl::StatusOr<uint32_t> ShmMember::SleepUntilChange(const std::atomic<uint32_t>& word,
                                                     uint32_t value, uint32_t member) {
  for (;;) {
    // In this order: what a peer wrote before it left still counts.
    const absl::Status alive = CheckPeersAlive(member);
    const uint32_t current = word.load(std::memory_order_seq_cst);
    if (current != value) return current;
    ESSOR_RETURN_IF_ERROR(alive);
    const SteadyNanos now = SteadyNow();
    ESSOR_RETURN_IF_ERROR(CheckWait(now, member));
    FutexWait(word, value, std::min(kSliceMax, deadline() - now));
  }
}

absl::Status ShmMember::CheckPeersAlive(uint32_t waited_for) const {
  if (HasLeft(waited_for)) {
    return MemberError(absl::StatusCode::kUnavailable, waited_for, "is gone");
  }
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index() || member == waited_for || !HasLeft(member)) continue;
    // One that has left after it announced the current exchange is still of use in it.
    const Announcement& announcement = peers_[member].segment->announcement();
    if (Ahead(announcement.sequence.load(std::memory_order_acquire), number_) >= 0) continue;
    return MemberError(absl::StatusCode::kUnavailable, member,
                       absl::StrFormat("is gone (while waiting for member %d)", waited_for));
  }
  return absl::OkStatus();
}

bool ShmMember::HasLeft(uint32_t member) const {
  const ShmPeer& peer = peers_[member];
  return peer.segment->closed().load(std::memory_order_acquire) != 0 ||
         (peer.liveness.valid() && ConnectionEnded(peer.liveness.get()));
}

absl::Status ShmMember::DoAllReduceSum(std::span<float> data) {
  if (!ReducesDirectly(data.size_bytes(), size())) return ReduceInRanges(data);
  ESSOR_ASSIGN_OR_RETURN(const uint32_t number, Begin());
  if (!data.empty()) std::memcpy(own_->payload(number), data.data(), data.size_bytes());
  Announce(number, Operation::kAllReduce, data.size_bytes());
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) {
      sources_[member] = data.data();
      continue;
    }
    ESSOR_RETURN_IF_ERROR(Await(member, number, Operation::kAllReduce, data.size_bytes()));
    sources_[member] = reinterpret_cast<const float*>(peers_[member].segment->payload(number));
  }
  SumInOrder(sources_, data.size(), data.data());
  return absl::OkStatus();
}

absl::Status ShmMember::ReduceInRanges(std::span<float> data) {
  const FloatRange mine = RangeOf(data.size(), index(), size());
  // First: every member shows all but its own range, and sums its own over all members.
  ESSOR_ASSIGN_OR_RETURN(const uint32_t scatter, Begin());
  float* shown = reinterpret_cast<float*>(own_->payload(scatter));
  const size_t mine_end = mine.begin + mine.count;
  std::memcpy(shown, data.data(), mine.begin * sizeof(float));
  std::memcpy(shown + mine_end, data.data() + mine_end, (data.size() - mine_end) * sizeof(float));
  Announce(scatter, Operation::kAllReduceScatter, data.size_bytes());
  ESSOR_RETURN_IF_ERROR(AwaitAll(scatter, Operation::kAllReduceScatter, data.size_bytes()));
  for (uint32_t member = 0; member < size(); ++member) {
    const float* from =
        member == index()
            ? data.data()
            : reinterpret_cast<const float*>(peers_[member].segment->payload(scatter));
    sources_[member] = from + mine.begin;
  }
  // Second: everybody shows its sums and takes the others'.
  ESSOR_ASSIGN_OR_RETURN(const uint32_t gather, Begin());
  float* sums = reinterpret_cast<float*>(own_->payload(gather));
  SumInOrder(sources_, mine.count, sums);
  Announce(gather, Operation::kAllReduceGather, data.size_bytes());
  std::memcpy(data.data() + mine.begin, sums, mine.count * sizeof(float));
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    ESSOR_RETURN_IF_ERROR(Await(member, gather, Operation::kAllReduceGather, data.size_bytes()));
    const FloatRange range = RangeOf(data.size(), member, size());
    std::memcpy(data.data() + range.begin, peers_[member].segment->payload(gather),
                range.count * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status ShmMember::DoAllGather(std::span<const std::byte> sent,
                                    std::span<std::byte> received) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t number, Begin());
  const size_t bytes = sent.size();
  if (bytes != 0) std::memcpy(own_->payload(number), sent.data(), bytes);
  Announce(number, Operation::kAllGather, bytes);
  if (bytes != 0) std::memmove(received.data() + index() * bytes, sent.data(), bytes);
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    ESSOR_RETURN_IF_ERROR(Await(member, number, Operation::kAllGather, bytes));
    if (bytes == 0) continue;
    std::memcpy(received.data() + member * bytes, peers_[member].segment->payload(number), bytes);
  }
  return absl::OkStatus();
}

absl::Status ShmMember::DoAllToAllV(const Parts& parts) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t number, Begin());
  uint64_t offset = 0;
  std::span<const std::byte> to_self;
  for (uint32_t member = 0; member < size(); ++member) {
    const uint64_t bytes = parts.send_bytes[member];
    if (member == index()) {
      to_self = parts.sent.subspan(offset, bytes);
    } else if (bytes != 0) {
      std::memcpy(own_->payload(number) + offset, parts.sent.data() + offset, bytes);
    }
    own_->part(number, member).offset.store(offset, std::memory_order_relaxed);
    own_->part(number, member).bytes.store(bytes, std::memory_order_relaxed);
    offset += bytes;
  }
  Announce(number, Operation::kAllToAllV, 0);
  uint64_t place_in_received = 0;
  for (uint32_t member = 0; member < size(); ++member) {
    const uint64_t bytes = parts.receive_bytes[member];
    std::byte* const into = parts.received.data() + place_in_received;
    place_in_received += bytes;
    if (member == index()) {
      if (bytes != 0) std::memcpy(into, to_self.data(), bytes);
      continue;
    }
    ESSOR_RETURN_IF_ERROR(Await(member, number, Operation::kAllToAllV, 0));
    const PartEntry& part = peers_[member].segment->part(number, index());
    const uint64_t sent_offset = part.offset.load(std::memory_order_relaxed);
    const uint64_t sent_bytes = part.bytes.load(std::memory_order_relaxed);
    if (sent_bytes != bytes || sent_offset > place().max_payload_bytes - bytes) {
      return MemberError(absl::StatusCode::kInternal, member,
                         absl::StrFormat("sent %d bytes at %d where %d were expected", sent_bytes,
                                         sent_offset, bytes));
    }
    if (bytes == 0) continue;
    std::memcpy(into, peers_[member].segment->payload(number) + sent_offset, bytes);
  }
  return absl::OkStatus();
}

absl::Status ShmMember::DoBroadcast(std::span<std::byte> data, uint32_t root) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t number, Begin());
  const bool sends = root == index();
  if (sends && !data.empty()) std::memcpy(own_->payload(number), data.data(), data.size());
  Announce(number, Operation::kBroadcast, data.size());
  if (sends) return absl::OkStatus();
  ESSOR_RETURN_IF_ERROR(Await(root, number, Operation::kBroadcast, data.size()));
  if (!data.empty()) {
    std::memcpy(data.data(), peers_[root].segment->payload(number), data.size());
  }
  return absl::OkStatus();
}

absl::Status ShmMember::DoBarrier() {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t number, Begin());
  Announce(number, Operation::kBarrier, 0);
  return AwaitAll(number, Operation::kBarrier, 0);
}

absl::Status ShmMember::DoSend(std::span<const std::byte> data, uint32_t to) {
  const FrameHeader header{.operation = Operation::kSend, .call = number_, .bytes = data.size()};
  ESSOR_RETURN_IF_ERROR(WriteRing(to, std::as_bytes(std::span(&header, 1))));
  return WriteRing(to, data);
}

absl::Status ShmMember::DoReceive(std::span<std::byte> data, uint32_t from) {
  FrameHeader came;
  ESSOR_RETURN_IF_ERROR(ReadRing(from, std::as_writable_bytes(std::span(&came, 1))));
  const FrameHeader expected{.operation = Operation::kSend, .call = number_, .bytes = data.size()};
  if (came != expected) {
    const absl::Status difference = CheckFrame(came, expected);
    return MemberError(difference.code(), from, std::string(difference.message()));
  }
  return ReadRing(from, data);
}

absl::Status ShmMember::WriteRing(uint32_t to, std::span<const std::byte> data) {
  std::atomic<uint32_t>& written_word = own_->ring_written(to);
  const std::atomic<uint32_t>& read_word = peers_[to].segment->ring_read(index());
  const uint32_t capacity = own_->ring_bytes();
  uint32_t written = written_word.load(std::memory_order_relaxed);
  uint32_t read = read_word.load(std::memory_order_acquire);
  while (!data.empty()) {
    const uint32_t used = written - read;
    if (used > capacity) {
      return MemberError(absl::StatusCode::kInternal, to, "took bytes that were not sent");
    }
    if (used == capacity) {
      ESSOR_ASSIGN_OR_RETURN(read, AwaitChange(read_word, read, to));
      continue;
    }
    const uint32_t at = written & (capacity - 1);
    const size_t piece = std::min<size_t>(
        {data.size(), size_t{capacity - used}, size_t{capacity - at}, size_t{kRingPieceBytes}});
    std::memcpy(own_->ring(to) + at, data.data(), piece);
    data = data.subspan(piece);
    written += static_cast<uint32_t>(piece);
    written_word.store(written, std::memory_order_seq_cst);
    WakeIfAsleep(to, written_word);
    read = read_word.load(std::memory_order_acquire);
  }
  return absl::OkStatus();
}

absl::Status ShmMember::ReadRing(uint32_t from, std::span<std::byte> data) {
  const std::atomic<uint32_t>& written_word = peers_[from].segment->ring_written(index());
  std::atomic<uint32_t>& read_word = own_->ring_read(from);
  const uint32_t capacity = own_->ring_bytes();
  uint32_t read = read_word.load(std::memory_order_relaxed);
  uint32_t written = written_word.load(std::memory_order_acquire);
  while (!data.empty()) {
    const uint32_t available = written - read;
    if (available > capacity) {
      return MemberError(absl::StatusCode::kInternal, from, "sent more bytes than fit");
    }
    if (available == 0) {
      ESSOR_ASSIGN_OR_RETURN(written, AwaitChange(written_word, written, from));
      continue;
    }
    const uint32_t at = read & (capacity - 1);
    const size_t piece = std::min<size_t>(
        {data.size(), size_t{available}, size_t{capacity - at}, size_t{kRingPieceBytes}});
    std::memcpy(data.data(), peers_[from].segment->ring(index()) + at, piece);
    data = data.subspan(piece);
    read += static_cast<uint32_t>(piece);
    read_word.store(read, std::memory_order_seq_cst);
    WakeIfAsleep(from, read_word);
    written = written_word.load(std::memory_order_acquire);
  }
  return absl::OkStatus();
}

void ShmMember::Leave() {
  own_->closed().store(1, std::memory_order_seq_cst);
  FutexWake(own_->announcement().sequence);
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    FutexWake(own_->ring_written(member));
    FutexWake(own_->ring_read(member));
  }
}

}  // namespace

std::unique_ptr<Communicator> MakeShmMember(GroupPlace place, std::shared_ptr<Segment> own,
                                            std::vector<ShmPeer> peers) {
  return std::make_unique<ShmMember>(std::move(place), std::move(own), std::move(peers));
}

}  // namespace essor::worker
