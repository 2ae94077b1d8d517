#include "worker/parallel/peer_link.h"

#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

constexpr SteadyNanos kRedialPause = 20 * kMillisecond;

}  // namespace

absl::StatusOr<bool> PeerLink::Advance(SteadyNanos now) {
  if (up()) return true;
  if (options_.route == Route::kMemory && options_.same_process) {
    ESSOR_RETURN_IF_ERROR(FindLocal());
  } else if (!options_.dials) {
    ESSOR_RETURN_IF_ERROR(TakeArrival());
  } else {
    if (state_ == State::kIdle && now >= dial_after_) Dial(now);
    if (state_ == State::kDialling) Greet(now);
    if (state_ == State::kAwaitingAnswer) ESSOR_RETURN_IF_ERROR(ReadAnswer(now));
  }
  return up();
}

std::optional<pollfd> PeerLink::Awaited() const {
  if (state_ == State::kDialling) return pollfd{stream_.get(), POLLOUT, 0};
  if (state_ == State::kAwaitingAnswer) return pollfd{stream_.get(), POLLIN, 0};
  return std::nullopt;
}

absl::Status PeerLink::FindLocal() {
  const SegmentIdentity& wanted = options_.peer_segment;
  segment_ = options_.local_segments->Find({wanted.epoch, wanted.group_key, wanted.member});
  if (segment_ == nullptr) return absl::OkStatus();
  if (segment_->identity() != wanted) {
    return PeerError(
        absl::StatusCode::kInvalidArgument,
        absl::StrFormat("wants payloads of %d bytes, this rank %d",
                        segment_->identity().max_payload_bytes, wanted.max_payload_bytes));
  }
  state_ = State::kUp;
  return absl::OkStatus();
}

absl::Status PeerLink::TakeArrival() {
  std::optional<Arrival> arrival =
      options_.server->Take({.epoch = options_.peer_segment.epoch,
                             .group_key = options_.peer_segment.group_key,
                             .from_rank = options_.peer_rank,
                             .to_rank = options_.own_rank});
  if (!arrival.has_value()) return absl::OkStatus();
  Hello answer = OwnHello(/*target_key=*/0);
  const uint64_t theirs = arrival->hello.max_payload_bytes;
  if (theirs != answer.max_payload_bytes) {
    answer.verdict = Verdict::kPayloadDiffers;
    (void)SendMessage(arrival->stream.get(), std::as_bytes(std::span(&answer, 1)), -1);
    return PeerError(absl::StatusCode::kInvalidArgument,
                     absl::StrFormat("wants payloads of %d bytes, this rank %d", theirs,
                                     answer.max_payload_bytes));
  }
  int own_segment = -1;
  if (options_.route == Route::kMemory) {
    ESSOR_RETURN_IF_ERROR(OpenSegment(std::move(arrival->segment)));
    own_segment = options_.own_segment_fd;
  }
  const absl::Status sent =
      SendMessage(arrival->stream.get(), std::as_bytes(std::span(&answer, 1)), own_segment);
  if (!sent.ok()) {  // gone since; it dials again
    last_failure_ = std::string(sent.message());
    return absl::OkStatus();
  }
  stream_ = std::move(arrival->stream);
  state_ = State::kUp;
  return absl::OkStatus();
}

void PeerLink::Dial(SteadyNanos now) {
  absl::StatusOr<UniqueFd> stream = options_.route == Route::kTcp
                                        ? DialTcp(options_.peer.tcp_address)
                                        : DialAbstract(options_.peer.shm_name);
  if (!stream.ok()) return Retry(now, std::string(stream.status().message()));
  stream_ = *std::move(stream);
  state_ = State::kDialling;
}

void PeerLink::Greet(SteadyNanos now) {
  pollfd entry{stream_.get(), POLLOUT, 0};
  if (poll(&entry, 1, 0) <= 0) return;
  if (const int error = ConnectError(stream_.get()); error != 0) {
    return Retry(now, absl::StrCat("cannot reach it: ", std::strerror(error)));
  }
  // The name may be somebody else's by now.
  if (options_.route != Route::kTcp && !PeerIsSameUser(stream_.get())) {
    return Retry(now, "it runs under another user id");
  }
  const Hello hello = OwnHello(EndpointKey(options_.peer));
  const int segment = options_.route == Route::kMemory ? options_.own_segment_fd : -1;
  const absl::Status sent =
      SendMessage(stream_.get(), std::as_bytes(std::span(&hello, 1)), segment);
  if (!sent.ok()) return Retry(now, std::string(sent.message()));
  answer_bytes_ = 0;
  state_ = State::kAwaitingAnswer;
}

absl::Status PeerLink::ReadAnswer(SteadyNanos now) {
  ReceivedPart part = ReceivePart(
      stream_.get(), std::as_writable_bytes(std::span(&answer_, 1)).subspan(answer_bytes_));
  if (part.passed.valid()) passed_ = std::move(part.passed);
  answer_bytes_ += part.bytes;
  if (answer_bytes_ < kHelloBytes) {
    if (part.ended) Retry(now, "it closed the connection");
    return absl::OkStatus();
  }
  if (answer_.verdict == Verdict::kTooMany) {
    Retry(now, ToText(answer_.verdict));
    return absl::OkStatus();
  }
  ESSOR_RETURN_IF_ERROR(CheckAnswer());
  if (options_.route == Route::kMemory) ESSOR_RETURN_IF_ERROR(OpenSegment(std::move(passed_)));
  state_ = State::kUp;
  return absl::OkStatus();
}

absl::Status PeerLink::CheckAnswer() const {
  if (const absl::Status status = CheckHello(answer_); !status.ok()) {
    return PeerError(absl::StatusCode::kUnavailable, std::string(status.message()));
  }
  if (answer_.verdict == Verdict::kPayloadDiffers) {
    return PeerError(
        absl::StatusCode::kInvalidArgument,
        absl::StrFormat("wants payloads of %d bytes, this rank %d", answer_.max_payload_bytes,
                        options_.peer_segment.max_payload_bytes));
  }
  if (answer_.verdict != Verdict::kAccepted) {
    return PeerError(
        absl::StatusCode::kUnavailable,
        absl::StrFormat("refused: %s (it is at epoch %d)", ToText(answer_.verdict), answer_.epoch));
  }
  const Hello own = OwnHello(0);
  if (answer_.epoch != own.epoch || answer_.group_key != own.group_key ||
      answer_.from_rank != own.to_rank || answer_.to_rank != own.from_rank ||
      answer_.max_payload_bytes != own.max_payload_bytes) {
    return PeerError(absl::StatusCode::kUnavailable, "answered for another group or rank");
  }
  return absl::OkStatus();
}

Hello PeerLink::OwnHello(uint64_t target_key) const {
  return {.epoch = options_.peer_segment.epoch,
          .group_key = options_.peer_segment.group_key,
          .from_rank = options_.own_rank,
          .to_rank = options_.peer_rank,
          .max_payload_bytes = options_.peer_segment.max_payload_bytes,
          .target_key = target_key};
}

absl::Status PeerLink::OpenSegment(UniqueFd fd) {
  absl::StatusOr<std::shared_ptr<const Segment>> opened =
      Segment::Open(std::move(fd), options_.peer_segment);
  if (!opened.ok()) {
    return PeerError(opened.status().code(),
                     absl::StrCat("handed over ", opened.status().message()));
  }
  segment_ = *std::move(opened);
  return absl::OkStatus();
}

void PeerLink::Retry(SteadyNanos now, const std::string& why) {
  last_failure_ = why;
  stream_.Reset();
  passed_.Reset();
  dial_after_ = now + kRedialPause;
  state_ = State::kIdle;
}

absl::Status PeerLink::PeerError(absl::StatusCode code, const std::string& text) const {
  return absl::Status(code, absl::StrFormat("rank %d %s", options_.peer_rank, text));
}

}  // namespace essor::worker
