#include "worker/parallel/wire.h"

#include <bit>
#include <string_view>

#include "absl/strings/str_format.h"

namespace essor::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "messages are copied as they are");

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

uint64_t AddBytes(uint64_t hash, std::string_view bytes) {
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * kFnvPrime;
  return hash;
}

uint64_t AddNumber(uint64_t hash, uint64_t number) {
  return AddBytes(hash, {reinterpret_cast<const char*>(&number), sizeof(number)});
}

// With its length, so that ("ab", "c") and ("a", "bc") differ.
uint64_t AddText(uint64_t hash, const std::string& text) {
  return AddBytes(AddNumber(hash, text.size()), text);
}

}  // namespace

const char* ToText(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAccepted:
      return "accepted";
    case Verdict::kOldEpoch:
      return "the epoch is over";
    case Verdict::kPayloadDiffers:
      return "the payload limits differ";
    case Verdict::kWrongReceiver:
      return "it was meant for another process";
    case Verdict::kTooMany:
      return "too many connections are waiting";
  }
  return "unknown";
}

absl::Status CheckHello(const Hello& hello) {
  if (hello.magic != kHelloMagic) {
    return absl::InvalidArgumentError(
        absl::StrFormat("not an essor data plane (first bytes %016x)", hello.magic));
  }
  if (hello.version != kWireVersion) {
    return absl::InvalidArgumentError(absl::StrFormat("speaks version %d of the data plane, not %d",
                                                      hello.version, kWireVersion));
  }
  if (hello.zero != 0 || hello.verdict > Verdict::kTooMany) {
    return absl::InvalidArgumentError("handshake with fields out of range");
  }
  return absl::OkStatus();
}

absl::Status CheckFrame(const FrameHeader& came, const FrameHeader& expected) {
  if (came == expected) return absl::OkStatus();
  if (came.magic != kFrameMagic || came.zero != 0) {
    return absl::InternalError(absl::StrFormat("sent a damaged frame (magic %08x)", came.magic));
  }
  return absl::InternalError(absl::StrFormat(
      "is at another call: it sent operation %d, call %d, %d bytes; expected operation %d, call "
      "%d, %d bytes",
      static_cast<uint32_t>(came.operation), came.call, came.bytes,
      static_cast<uint32_t>(expected.operation), expected.call, expected.bytes));
}

uint64_t GroupKey(const std::string& name, const std::vector<uint32_t>& ranks) {
  uint64_t hash = AddText(kFnvOffset, name);
  for (const uint32_t rank : ranks) hash = AddNumber(hash, rank);
  return hash;
}

uint64_t EndpointKey(const DataEndpoint& endpoint) {
  return AddText(AddText(AddText(kFnvOffset, endpoint.host_key), endpoint.shm_name),
                 endpoint.tcp_address);
}

}  // namespace essor::worker
