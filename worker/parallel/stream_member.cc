#include "worker/parallel/stream_member.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/parallel/ordered_sum.h"
#include "worker/parallel/wire.h"

namespace essor::worker {
namespace {

using Bytes = std::span<const std::byte>;
using WritableBytes = std::span<std::byte>;

// One frame on its way out and one on its way in, over one stream.
struct Transfer {
  FrameHeader out_header;
  Bytes out;
  size_t out_left = 0;  // of header and payload together
  FrameHeader expected;
  FrameHeader in_header;
  WritableBytes in;
  size_t in_left = 0;
  bool done() const { return out_left == 0 && in_left == 0; }
};

// The part of header + payload that is left, as the kernel wants it.
struct Pieces {
  iovec parts[2];
  size_t count = 0;
};

template <typename Payload>
Pieces RestOf(FrameHeader* header, std::span<Payload> payload, size_t left) {
  Pieces pieces;
  const size_t done = kFrameHeaderBytes + payload.size() - left;
  if (done < kFrameHeaderBytes) {
    auto* bytes = reinterpret_cast<std::byte*>(header);
    pieces.parts[pieces.count++] = {bytes + done, kFrameHeaderBytes - done};
  }
  const size_t payload_done = done < kFrameHeaderBytes ? 0 : done - kFrameHeaderBytes;
  if (payload_done < payload.size()) {
    auto* bytes = const_cast<std::byte*>(payload.data());
    pieces.parts[pieces.count++] = {bytes + payload_done, payload.size() - payload_done};
  }
  return pieces;
}

class StreamMember : public GroupMember {
 public:
  StreamMember(GroupPlace place, std::vector<UniqueFd> streams, std::string transport);
  ~StreamMember() override { StreamMember::Leave(); }

  std::string transport() const override { return transport_; }

 protected:
  absl::Status DoAllReduceSum(std::span<float> data) override;
  absl::Status DoAllGather(Bytes sent, WritableBytes received) override;
  absl::Status DoAllToAllV(const Parts& parts) override;
  absl::Status DoBroadcast(WritableBytes data, uint32_t root) override;
  absl::Status DoBarrier() override;
  absl::Status DoSend(Bytes data, uint32_t to) override;
  absl::Status DoReceive(WritableBytes data, uint32_t from) override;
  void Leave() override;

 private:
  // What the next Exchange() does; the memory is borrowed until it returns.
  void StageOut(uint32_t member, Operation operation, Bytes payload);
  void StageIn(uint32_t member, Operation operation, WritableBytes payload);
  // Completes everything staged.
  absl::Status Exchange();

  absl::Status ReduceInRanges(std::span<float> data);
  // Moves what can be moved now; true when that was anything.
  absl::StatusOr<bool> Progress();
  absl::StatusOr<bool> ProgressOut(uint32_t member);
  absl::StatusOr<bool> ProgressIn(uint32_t member);
  // Until a staged stream is ready, a slice is over, or the deadline.
  void Sleep();
  uint32_t FirstUnfinished() const;
  absl::Status Gone(uint32_t member, int error) const;
  // Scratch for a contribution of `member`.
  float* Scratch(uint32_t member) { return scratch_.data() + member * scratch_floats_; }

  const std::vector<UniqueFd> streams_;
  const std::string transport_;
  uint64_t call_ = 0;  // collective exchanges so far
  std::vector<Transfer> transfers_;
  std::vector<pollfd> polled_;
  size_t scratch_floats_;  // per member
  std::vector<float> scratch_;
  std::vector<const float*> sources_;
};

// Floats of one member's contribution to a sum here: the whole payload where the group reduces
// directly, else the range summed here, whichever is larger.
size_t ScratchFloats(uint64_t max_payload_bytes, uint32_t members) {
  const size_t floats = max_payload_bytes / sizeof(float);
  if (ReducesDirectly(max_payload_bytes, members)) return floats;
  return std::max(kDirectReduceBytesMax / sizeof(float), RangeOf(floats, 0, members).count);
}

StreamMember::StreamMember(GroupPlace place, std::vector<UniqueFd> streams, std::string transport)
    : GroupMember(std::move(place)),
      streams_(std::move(streams)),
      transport_(std::move(transport)),
      transfers_(streams_.size()),
      scratch_floats_(ScratchFloats(this->place().max_payload_bytes, size())),
      scratch_(scratch_floats_ * size()),
      sources_(size(), nullptr) {
  polled_.reserve(streams_.size());
  for (const UniqueFd& stream : streams_) {
    if (stream.valid()) ReserveBuffers(stream.get(), kBufferedSendBytes);
  }
}

void StreamMember::StageOut(uint32_t member, Operation operation, Bytes payload) {
  Transfer& transfer = transfers_[member];
  transfer.out_header = {.operation = operation, .call = call_, .bytes = payload.size()};
  transfer.out = payload;
  transfer.out_left = kFrameHeaderBytes + payload.size();
}

void StreamMember::StageIn(uint32_t member, Operation operation, WritableBytes payload) {
  Transfer& transfer = transfers_[member];
  transfer.expected = {.operation = operation, .call = call_, .bytes = payload.size()};
  transfer.in = payload;
  transfer.in_left = kFrameHeaderBytes + payload.size();
}

absl::Status StreamMember::Exchange() {
  SteadyNanos idle_since = 0;  // 0: something moved in the last turn
  SteadyNanos spin = 0;
  bool slept = false;
  for (;;) {
    ESSOR_ASSIGN_OR_RETURN(const bool moved, Progress());
    if (moved && idle_since != 0) {
      if (!slept) spin_governor().Report(/*arrived=*/true);
      idle_since = 0;
    }
    const uint32_t waited_for = FirstUnfinished();
    if (waited_for == size()) return absl::OkStatus();
    if (moved) continue;
    const SteadyNanos now = SteadyNow();
    ESSOR_RETURN_IF_ERROR(CheckWait(now, waited_for));
    if (idle_since == 0) {
      idle_since = now;
      spin = spin_governor().NextSpin();
      slept = false;
    }
    if (now - idle_since < spin) {
      SpinPause();
      continue;
    }
    if (!slept) spin_governor().Report(/*arrived=*/false);
    slept = true;
    Sleep();
  }
}

uint32_t StreamMember::FirstUnfinished() const {
  uint32_t member = 0;
  while (member < size() && transfers_[member].done()) ++member;
  return member;
}

absl::StatusOr<bool> StreamMember::Progress() {
  bool moved = false;
  for (uint32_t member = 0; member < size(); ++member) {
    if (transfers_[member].out_left == 0) continue;
    ESSOR_ASSIGN_OR_RETURN(const bool sent, ProgressOut(member));
    moved |= sent;
  }
  for (uint32_t member = 0; member < size(); ++member) {
    if (transfers_[member].in_left == 0) continue;
    ESSOR_ASSIGN_OR_RETURN(const bool received, ProgressIn(member));
    moved |= received;
  }
  return moved;
}

absl::StatusOr<bool> StreamMember::ProgressOut(uint32_t member) {
  Transfer& transfer = transfers_[member];
  Pieces pieces = RestOf(&transfer.out_header, transfer.out, transfer.out_left);
  msghdr message{};
  message.msg_iov = pieces.parts;
  message.msg_iovlen = pieces.count;
  const ssize_t sent = sendmsg(streams_[member].get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) {
    transfer.out_left -= static_cast<size_t>(sent);
    return true;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return false;
  return Gone(member, errno);
}

absl::StatusOr<bool> StreamMember::ProgressIn(uint32_t member) {
  Transfer& transfer = transfers_[member];
  const bool header_was_complete = transfer.in_left <= transfer.in.size();
  Pieces pieces = RestOf(&transfer.in_header, transfer.in, transfer.in_left);
  msghdr message{};
  message.msg_iov = pieces.parts;
  message.msg_iovlen = pieces.count;
  const ssize_t came = recvmsg(streams_[member].get(), &message, MSG_DONTWAIT);
  if (came < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return false;
    return Gone(member, errno);
  }
  if (came == 0) return Gone(member, 0);
  transfer.in_left -= static_cast<size_t>(came);
  // As soon as the header is there: with a wrong one the rest might never come.
  if (!header_was_complete && transfer.in_left <= transfer.in.size() &&
      transfer.in_header != transfer.expected) {
    const absl::Status difference = CheckFrame(transfer.in_header, transfer.expected);
    return MemberError(difference.code(), member, std::string(difference.message()));
  }
  return true;
}

void StreamMember::Sleep() {
  polled_.clear();
  for (uint32_t member = 0; member < size(); ++member) {
    const Transfer& transfer = transfers_[member];
    if (transfer.done()) continue;
    short events = 0;
    if (transfer.in_left != 0) events |= POLLIN;
    if (transfer.out_left != 0) events |= POLLOUT;
    polled_.push_back({.fd = streams_[member].get(), .events = events, .revents = 0});
  }
  const SteadyNanos left = std::clamp<SteadyNanos>(deadline() - SteadyNow(), 0, kSliceMax);
  const timespec slice{.tv_sec = 0, .tv_nsec = left};
  (void)ppoll(polled_.data(), polled_.size(), &slice, nullptr);
}

absl::Status StreamMember::Gone(uint32_t member, int error) const {
  return MemberError(absl::StatusCode::kUnavailable, member,
                     error == 0 ? "is gone" : absl::StrCat("is gone (", std::strerror(error), ")"));
}

absl::Status StreamMember::DoAllReduceSum(std::span<float> data) {
  if (!ReducesDirectly(data.size_bytes(), size())) return ReduceInRanges(data);
  ++call_;
  for (uint32_t member = 0; member < size(); ++member) {
    sources_[member] = member == index() ? data.data() : Scratch(member);
    if (member == index()) continue;
    StageOut(member, Operation::kAllReduce, std::as_bytes(data));
    StageIn(member, Operation::kAllReduce,
            std::as_writable_bytes(std::span(Scratch(member), data.size())));
  }
  ESSOR_RETURN_IF_ERROR(Exchange());
  SumInOrder(sources_, data.size(), data.data());
  return absl::OkStatus();
}

absl::Status StreamMember::ReduceInRanges(std::span<float> data) {
  // First: every member gets all contributions to its own range and sums them.
  ++call_;
  const FloatRange mine = RangeOf(data.size(), index(), size());
  for (uint32_t member = 0; member < size(); ++member) {
    sources_[member] = member == index() ? data.data() + mine.begin : Scratch(member);
    if (member == index()) continue;
    const FloatRange theirs = RangeOf(data.size(), member, size());
    StageOut(member, Operation::kAllReduceScatter,
             std::as_bytes(data.subspan(theirs.begin, theirs.count)));
    StageIn(member, Operation::kAllReduceScatter,
            std::as_writable_bytes(std::span(Scratch(member), mine.count)));
  }
  ESSOR_RETURN_IF_ERROR(Exchange());
  SumInOrder(sources_, mine.count, data.data() + mine.begin);
  // Second: everybody gets everybody's sums.
  ++call_;
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    const FloatRange theirs = RangeOf(data.size(), member, size());
    StageOut(member, Operation::kAllReduceGather,
             std::as_bytes(data.subspan(mine.begin, mine.count)));
    StageIn(member, Operation::kAllReduceGather,
            std::as_writable_bytes(data.subspan(theirs.begin, theirs.count)));
  }
  return Exchange();
}

absl::Status StreamMember::DoAllGather(Bytes sent, WritableBytes received) {
  ++call_;
  const size_t bytes = sent.size();
  const WritableBytes own = received.subspan(index() * bytes, bytes);
  if (bytes != 0) std::memmove(own.data(), sent.data(), bytes);
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    StageOut(member, Operation::kAllGather, own);
    StageIn(member, Operation::kAllGather, received.subspan(member * bytes, bytes));
  }
  return Exchange();
}

absl::Status StreamMember::DoAllToAllV(const Parts& parts) {
  ++call_;
  size_t sent_offset = 0;
  size_t received_offset = 0;
  for (uint32_t member = 0; member < size(); ++member) {
    const Bytes out = parts.sent.subspan(sent_offset, parts.send_bytes[member]);
    const WritableBytes in = parts.received.subspan(received_offset, parts.receive_bytes[member]);
    sent_offset += out.size();
    received_offset += in.size();
    if (member == index()) {
      if (!out.empty()) std::memcpy(in.data(), out.data(), out.size());
      continue;
    }
    StageOut(member, Operation::kAllToAllV, out);
    StageIn(member, Operation::kAllToAllV, in);
  }
  return Exchange();
}

absl::Status StreamMember::DoBroadcast(WritableBytes data, uint32_t root) {
  ++call_;
  if (root != index()) {
    StageIn(root, Operation::kBroadcast, data);
    return Exchange();
  }
  for (uint32_t member = 0; member < size(); ++member) {
    if (member != index()) StageOut(member, Operation::kBroadcast, data);
  }
  return Exchange();
}

absl::Status StreamMember::DoBarrier() {
  ++call_;
  for (uint32_t member = 0; member < size(); ++member) {
    if (member == index()) continue;
    StageOut(member, Operation::kBarrier, {});
    StageIn(member, Operation::kBarrier, {});
  }
  return Exchange();
}

absl::Status StreamMember::DoSend(Bytes data, uint32_t to) {
  StageOut(to, Operation::kSend, data);
  return Exchange();
}

absl::Status StreamMember::DoReceive(WritableBytes data, uint32_t from) {
  StageIn(from, Operation::kSend, data);
  return Exchange();
}

void StreamMember::Leave() {
  for (const UniqueFd& stream : streams_) {
    if (stream.valid()) (void)shutdown(stream.get(), SHUT_RDWR);
  }
}

}  // namespace

std::unique_ptr<Communicator> MakeStreamMember(GroupPlace place, std::vector<UniqueFd> streams,
                                               std::string transport) {
  return std::make_unique<StreamMember>(std::move(place), std::move(streams), std::move(transport));
}

}  // namespace essor::worker
