// The shared memory of one member of one group. Only its owner writes it; the other members map it
// read-only (sealed memory: no other process can write or resize it, so a peer can send nonsense
// but never damage this process). It has no name: it goes with the last process that maps it.
//
// Layout, for a group of N members and payloads of at most P bytes:
//
//   0                 SegmentHeader: who this is; constant
//   64                Announcement: number and kind of the collective exchange the owner is in
//   128               WordLine sleeping_on: 0, or 1 + the member whose word the owner sleeps on
//   192               WordLine closed: 1 once the owner has left the group
//   256               N WordLines ring_written: bytes put into the ring for member i, modulo 2^32
//   256 + 64 N        N WordLines ring_read: bytes taken from member i's ring for the owner
//   slots (page)      2 slots, each a PartTable (16 N bytes, rounded up to 64) and P payload bytes
//   rings (page)      N rings of ring_bytes (a power of two), ring i for member i
//
// Exchange number s uses slot s % 2 and Announcement::records[s % 2]. A member announces s only
// after every other member has announced s - 1, so a slot is never written while exchange s - 2 is
// still being read.
//
// Ordering: the owner writes a slot, then announces (release); a reader sees the number (acquire),
// then reads. A reader that goes to sleep stores sleeping_on, then loads the word once more; the
// owner stores the word, then loads sleeping_on; all four sequentially consistent, so one of the
// two notices the other.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "worker/parallel/socket.h"

namespace essor::worker {

inline constexpr uint64_t kSegmentMagic = 0x3147'4553'5253'5345;  // "ESSRSEG1"
inline constexpr size_t kLineBytes = 64;

// What a segment is for; equal in its header and in its readers' expectation.
struct SegmentIdentity {
  uint64_t epoch = 0;
  uint64_t group_key = 0;
  uint32_t member = 0;
  uint32_t group_size = 0;
  uint64_t max_payload_bytes = 0;
  bool operator==(const SegmentIdentity&) const = default;
};

struct alignas(kLineBytes) SegmentHeader {
  uint64_t magic = kSegmentMagic;
  uint64_t total_bytes = 0;
  SegmentIdentity identity;
};
static_assert(sizeof(SegmentHeader) == kLineBytes);

struct alignas(kLineBytes) WordLine {
  std::atomic<uint32_t> word;
};

// One line, so that one transfer between cores says both that a contribution is there and what it
// is.
struct alignas(kLineBytes) Announcement {
  std::atomic<uint32_t> sequence;
  struct Record {
    std::atomic<uint32_t> operation;
    std::atomic<uint64_t> bytes;
  };
  Record records[2];
};
static_assert(sizeof(Announcement) == kLineBytes);

// Where member i's part of an all-to-all lies in the payload.
struct PartEntry {
  std::atomic<uint64_t> offset;
  std::atomic<uint64_t> bytes;
};

// Offsets computed from the identity alone, never read from shared memory.
struct SegmentLayout {
  explicit SegmentLayout(const SegmentIdentity& identity);
  size_t ring_written;
  size_t ring_read;
  size_t slots;
  size_t slot_bytes;
  size_t table_bytes;
  size_t rings;
  uint32_t ring_bytes;
  size_t total_bytes;
};

// A mapped segment; thread-compatible except for its atomics. Mutable accessors are for the owner's
// mapping only.
class Segment {
 public:
  struct Created;
  // Memory is reserved and mapped here: ResourceExhausted when there is not enough.
  static absl::StatusOr<Created> Create(const SegmentIdentity& identity);
  // Maps a peer's segment read-only. InvalidArgument when it is not sealed or not what is expected.
  static absl::StatusOr<std::shared_ptr<const Segment>> Open(UniqueFd fd,
                                                             const SegmentIdentity& expected);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  const SegmentIdentity& identity() const { return identity_; }
  uint32_t ring_bytes() const { return layout_.ring_bytes; }

  const Announcement& announcement() const { return *At<Announcement>(kLineBytes); }
  const std::atomic<uint32_t>& sleeping_on() const { return At<WordLine>(2 * kLineBytes)->word; }
  const std::atomic<uint32_t>& closed() const { return At<WordLine>(3 * kLineBytes)->word; }
  const std::atomic<uint32_t>& ring_written(uint32_t member) const {
    return At<WordLine>(layout_.ring_written)[member].word;
  }
  const std::atomic<uint32_t>& ring_read(uint32_t member) const {
    return At<WordLine>(layout_.ring_read)[member].word;
  }
  const PartEntry& part(uint32_t sequence, uint32_t member) const {
    return At<PartEntry>(SlotOffset(sequence))[member];
  }
  const std::byte* payload(uint32_t sequence) const {
    return base_ + SlotOffset(sequence) + layout_.table_bytes;
  }
  const std::byte* ring(uint32_t member) const {
    return base_ + layout_.rings + size_t{member} * layout_.ring_bytes;
  }

  Announcement& announcement() { return *At<Announcement>(kLineBytes); }
  std::atomic<uint32_t>& sleeping_on() { return At<WordLine>(2 * kLineBytes)->word; }
  std::atomic<uint32_t>& closed() { return At<WordLine>(3 * kLineBytes)->word; }
  std::atomic<uint32_t>& ring_written(uint32_t member) {
    return At<WordLine>(layout_.ring_written)[member].word;
  }
  std::atomic<uint32_t>& ring_read(uint32_t member) {
    return At<WordLine>(layout_.ring_read)[member].word;
  }
  PartEntry& part(uint32_t sequence, uint32_t member) {
    return At<PartEntry>(SlotOffset(sequence))[member];
  }
  std::byte* payload(uint32_t sequence) {
    return base_ + SlotOffset(sequence) + layout_.table_bytes;
  }
  std::byte* ring(uint32_t member) {
    return base_ + layout_.rings + size_t{member} * layout_.ring_bytes;
  }

 private:
  Segment(const SegmentIdentity& identity, std::byte* base)
      : identity_(identity), layout_(identity), base_(base) {}

  template <typename T>
  T* At(size_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  size_t SlotOffset(uint32_t sequence) const {
    return layout_.slots + (sequence & 1) * layout_.slot_bytes;
  }

  const SegmentIdentity identity_;
  const SegmentLayout layout_;
  std::byte* const base_;
};

struct Segment::Created {
  std::shared_ptr<Segment> segment;  // shared with the other members of this process
  UniqueFd fd;                       // to hand to other processes
};

}  // namespace essor::worker
