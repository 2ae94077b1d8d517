// The way from one member of a group to another while the group is being formed.
#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/handshake_server.h"
#include "worker/parallel/local_segments.h"
#include "worker/parallel/socket.h"
#include "worker/parallel/waiting.h"
#include "worker/parallel/wire.h"

namespace essor::worker {

// How two ranks reach each other; the same seen from both.
enum class Route {
  kMemory,  // one host; the members of the group all share it
  kUnix,    // one host, but the group has members elsewhere: a stream over a Unix socket
  kTcp,
};

// A state machine that never blocks. The member with the larger number dials, the other one waits
// for the connection; members of one process on route kMemory find each other's segment without
// one.
//
//   dialling:  kIdle -> kDialling -> kAwaitingAnswer -> kUp      any failure: back to kIdle, and
//   waiting:   kIdle -> kUp                                      again after a pause
//
// Owned by the thread that forms the groups.
class PeerLink {
 public:
  struct Options {
    Route route = Route::kTcp;
    bool same_process = false;
    bool dials = false;
    DataEndpoint peer;
    uint32_t own_rank = 0;
    uint32_t peer_rank = 0;
    SegmentIdentity peer_segment;  // epoch, group and payload limit of the link on every route
    int own_segment_fd = -1;       // handed over on route kMemory; outlives the link
    HandshakeServer* server = nullptr;
    const LocalSegments* local_segments = nullptr;
  };
  explicit PeerLink(const Options& options) : options_(options) {}

  // Does what can be done now; true once the link is up. An error is final: the peer refused, or
  // the two disagree about the group.
  absl::StatusOr<bool> Advance(SteadyNanos now);

  bool up() const { return state_ == State::kUp; }
  uint32_t peer_rank() const { return options_.peer_rank; }
  // What to poll before the next Advance(); nullopt: nothing, try again after a moment.
  std::optional<pollfd> Awaited() const;
  // Why the last attempt failed; empty when none did.
  const std::string& last_failure() const { return last_failure_; }

  // Once up: the connected stream (routes kUnix and kTcp), or the end-of-process signal (kMemory;
  // invalid in the same process).
  UniqueFd TakeStream() { return std::move(stream_); }
  // Once up on route kMemory.
  std::shared_ptr<const Segment> segment() const { return segment_; }

 private:
  enum class State { kIdle, kDialling, kAwaitingAnswer, kUp };

  absl::Status FindLocal();
  absl::Status TakeArrival();
  void Dial(SteadyNanos now);
  void Greet(SteadyNanos now);
  absl::Status ReadAnswer(SteadyNanos now);
  absl::Status CheckAnswer() const;
  // Hello of this side; `target_key` as wire.h says.
  Hello OwnHello(uint64_t target_key) const;
  absl::Status OpenSegment(UniqueFd fd);
  void Retry(SteadyNanos now, const std::string& why);
  absl::Status PeerError(absl::StatusCode code, const std::string& text) const;

  const Options options_;
  State state_ = State::kIdle;
  UniqueFd stream_;
  UniqueFd passed_;  // segment that came with a part of the answer
  Hello answer_;
  size_t answer_bytes_ = 0;
  SteadyNanos dial_after_ = 0;
  std::string last_failure_;
  std::shared_ptr<const Segment> segment_;
};

}  // namespace essor::worker
