// Bytes that data planes exchange over sockets. Integers are little-endian; messages have a fixed
// size and no padding, so that a reader never depends on a length it was sent.
//
// A connection starts with one Hello from the member that dials (on Unix sockets of an all-shared-
// memory group with one file descriptor attached: its segment) and one Hello back (likewise):
//
//   offset  0  u64 magic            "ESSORDP1"
//           8  u32 version          kWireVersion
//          12  u32 verdict          0 = go on; see Verdict; 0 in the dialler's Hello
//          16  u64 epoch
//          24  u64 group_key        GroupKey(name, ranks)
//          32  u32 from_rank        global ranks, sender and intended receiver
//          36  u32 to_rank
//          40  u64 max_payload_bytes
//          48  u64 target_key       EndpointKey of the receiver the dialler meant; 0 in the answer
//          56  u64 zero
//
// After that a connection between shared-memory members carries nothing: its end tells that the
// peer's process is gone. Other connections, and the rings in shared memory, carry frames:
//
//   offset  0  u32 magic            kFrameMagic
//           4  u32 operation        Operation
//           8  u64 call             number of the collective exchange in this group, from 1
//          16  u64 bytes            length of the payload that follows
//          24  u64 zero
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

inline constexpr uint64_t kHelloMagic = 0x3150'4452'4f53'5345;  // "ESSORDP1"
inline constexpr uint32_t kFrameMagic = 0x4652'5345;            // "ESRF"
inline constexpr uint32_t kWireVersion = 1;

enum class Verdict : uint32_t {
  kAccepted = 0,
  kOldEpoch = 1,        // the answer's `epoch` is the oldest one still accepted
  kPayloadDiffers = 2,  // the answer's max_payload_bytes is the receiver's
  kWrongReceiver = 3,   // target_key is not the receiver's
  kTooMany = 4,         // too many connections wait; dial again later
};
const char* ToText(Verdict verdict);

struct Hello {
  uint64_t magic = kHelloMagic;
  uint32_t version = kWireVersion;
  Verdict verdict = Verdict::kAccepted;
  uint64_t epoch = 0;
  uint64_t group_key = 0;
  uint32_t from_rank = 0;
  uint32_t to_rank = 0;
  uint64_t max_payload_bytes = 0;
  uint64_t target_key = 0;
  uint64_t zero = 0;
};
inline constexpr size_t kHelloBytes = 64;
static_assert(sizeof(Hello) == kHelloBytes);

// What an exchange is, so that members that disagree about it notice.
enum class Operation : uint32_t {
  kAllReduce = 1,         // every member's whole contribution to every member
  kAllReduceScatter = 2,  // first half of a large all-reduce
  kAllReduceGather = 3,   // second half
  kAllGather = 4,
  kAllToAllV = 5,
  kBroadcast = 6,
  kBarrier = 7,
  kSend = 8,
};

struct FrameHeader {
  uint32_t magic = kFrameMagic;
  Operation operation = Operation::kBarrier;
  uint64_t call = 0;
  uint64_t bytes = 0;
  uint64_t zero = 0;
  bool operator==(const FrameHeader&) const = default;
};
inline constexpr size_t kFrameHeaderBytes = 32;
static_assert(sizeof(FrameHeader) == kFrameHeaderBytes);

// Magic, version and zero of a Hello read from a stranger; InvalidArgument says what is wrong.
absl::Status CheckHello(const Hello& hello);

// What is different between a frame that came and the one expected here; OK when they are equal.
// Internal: the members do not make the same calls, or the peer is broken.
absl::Status CheckFrame(const FrameHeader& came, const FrameHeader& expected);

// 64-bit FNV-1a over name and ranks: tells groups of one epoch apart.
uint64_t GroupKey(const std::string& name, const std::vector<uint32_t>& ranks);
// The same over all fields of an endpoint: tells that a reused port or name is another process.
uint64_t EndpointKey(const DataEndpoint& endpoint);

}  // namespace essor::worker
