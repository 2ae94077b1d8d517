#include "worker/parallel/handshake_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/log.h"
#include "worker/parallel/waiting.h"

namespace essor::worker {
namespace {

constexpr size_t kPendingMax = 128;
constexpr size_t kArrivalsMax = 8192;
constexpr SteadyNanos kHelloTimeout = 2000 * kMillisecond;
constexpr SteadyNanos kSweepInterval = 1000 * kMillisecond;
// After accept() failed for want of descriptors or memory.
constexpr SteadyNanos kAcceptPause = 100 * kMillisecond;
constexpr int kAcceptsPerTurn = 32;

// A connection whose Hello is not complete.
struct Pending {
  UniqueFd stream;
  UniqueFd segment;
  std::array<std::byte, kHelloBytes> bytes;
  size_t received = 0;
  SteadyNanos give_up = 0;
};

class ThreadedHandshakeServer : public HandshakeServer {
 public:
  ThreadedHandshakeServer(Options options, UniqueFd stop)
      : options_(std::move(options)), stop_(std::move(stop)), thread_([this] { Serve(); }) {}

  ~ThreadedHandshakeServer() override {
    const uint64_t one = 1;
    (void)!write(stop_.get(), &one, sizeof(one));
    thread_.join();
  }

  std::optional<Arrival> Take(const Key& key) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Fence(uint64_t oldest_epoch) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Serve();
  // One turn: waits for events and handles them; false when asked to stop.
  bool Turn();
  int TurnTimeoutMs(SteadyNanos now) ABSL_LOCKS_EXCLUDED(mutex_);
  void Accept(const UniqueFd& listener, bool is_abstract);
  // True when `pending` is finished: arrived, or dropped.
  bool Read(Pending& pending);
  void Arrive(Pending& pending) ABSL_LOCKS_EXCLUDED(mutex_);
  // Keeps a connection for Take(); otherwise false, and what to answer.
  bool Admit(Pending& pending, const Hello& hello, Hello* refusal) ABSL_LOCKS_EXCLUDED(mutex_);
  void DropStale(SteadyNanos now) ABSL_LOCKS_EXCLUDED(mutex_);

  Options options_;
  const UniqueFd stop_;

  // Used by the thread only.
  std::list<Pending> pending_;
  std::vector<pollfd> polled_;
  SteadyNanos accept_after_ = 0;
  SteadyNanos next_sweep_ = 0;

  absl::Mutex mutex_;
  uint64_t oldest_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<Key, Arrival> arrivals_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: starts when everything else is there
};

std::optional<Arrival> ThreadedHandshakeServer::Take(const Key& key) {
  absl::MutexLock lock(&mutex_);
  const auto found = arrivals_.find(key);
  if (found == arrivals_.end()) return std::nullopt;
  Arrival arrival = std::move(found->second);
  arrivals_.erase(found);
  if (ConnectionEnded(arrival.stream.get())) return std::nullopt;  // it will dial again
  return arrival;
}

void ThreadedHandshakeServer::Fence(uint64_t oldest_epoch) {
  absl::MutexLock lock(&mutex_);
  if (oldest_epoch <= oldest_epoch_) return;
  oldest_epoch_ = oldest_epoch;
  absl::erase_if(arrivals_, [&](const auto& entry) { return entry.first.epoch < oldest_epoch; });
}

void ThreadedHandshakeServer::Serve() {
  while (Turn()) {
  }
}

int ThreadedHandshakeServer::TurnTimeoutMs(SteadyNanos now) {
  SteadyNanos next = -1;
  const auto at = [&](SteadyNanos time) { next = next < 0 ? time : std::min(next, time); };
  if (!pending_.empty()) at(pending_.front().give_up);  // the oldest
  if (accept_after_ > now) at(accept_after_);
  absl::MutexLock lock(&mutex_);
  if (!arrivals_.empty()) at(next_sweep_);
  if (next < 0) return -1;
  return static_cast<int>(std::max<SteadyNanos>(next - now, 0) / kMillisecond + 1);
}

bool ThreadedHandshakeServer::Turn() {
  SteadyNanos now = SteadyNow();
  const bool accepts = now >= accept_after_ && pending_.size() < kPendingMax;
  polled_.clear();
  polled_.push_back({.fd = stop_.get(), .events = POLLIN, .revents = 0});
  // A negative descriptor is skipped by poll().
  polled_.push_back(
      {.fd = accepts ? options_.tcp_listener.get() : -1, .events = POLLIN, .revents = 0});
  polled_.push_back(
      {.fd = accepts ? options_.abstract_listener.get() : -1, .events = POLLIN, .revents = 0});
  for (const Pending& pending : pending_) {
    polled_.push_back({.fd = pending.stream.get(), .events = POLLIN, .revents = 0});
  }
  (void)poll(polled_.data(), polled_.size(), TurnTimeoutMs(now));
  if (polled_[0].revents != 0) return false;

  size_t slot = 3;
  for (auto pending = pending_.begin(); pending != pending_.end(); ++slot) {
    const bool finished = polled_[slot].revents != 0 && Read(*pending);
    pending = finished ? pending_.erase(pending) : std::next(pending);
  }
  if (polled_[1].revents != 0) Accept(options_.tcp_listener, /*is_abstract=*/false);
  if (polled_[2].revents != 0) Accept(options_.abstract_listener, /*is_abstract=*/true);
  DropStale(SteadyNow());
  return true;
}

void ThreadedHandshakeServer::Accept(const UniqueFd& listener, bool is_abstract) {
  for (int i = 0; i < kAcceptsPerTurn && pending_.size() < kPendingMax; ++i) {
    UniqueFd stream(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!stream.valid()) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == ECONNABORTED || errno == EINTR) continue;
      spdlog::warn("data plane cannot accept connections: {}", std::strerror(errno));
      accept_after_ = SteadyNow() + kAcceptPause;
      return;
    }
    if (is_abstract && !PeerIsSameUser(stream.get())) {
      spdlog::warn("data plane dropped a connection: the peer runs under another user id");
      continue;
    }
    if (!is_abstract) TuneTcp(stream.get());
    Pending& pending = pending_.emplace_back();
    pending.stream = std::move(stream);
    pending.give_up = SteadyNow() + kHelloTimeout;
  }
}

bool ThreadedHandshakeServer::Read(Pending& pending) {
  ReceivedPart part =
      ReceivePart(pending.stream.get(), std::span(pending.bytes).subspan(pending.received));
  if (part.passed.valid()) pending.segment = std::move(part.passed);
  pending.received += part.bytes;
  if (pending.received == kHelloBytes) {
    Arrive(pending);
    return true;
  }
  if (!part.ended) return false;
  spdlog::warn("data plane dropped a connection: it ended after {} of {} handshake bytes",
               pending.received, kHelloBytes);
  return true;
}

void ThreadedHandshakeServer::Arrive(Pending& pending) {
  Hello hello;
  std::memcpy(&hello, pending.bytes.data(), sizeof(hello));
  if (const absl::Status status = CheckHello(hello); !status.ok()) {
    spdlog::warn("data plane dropped a connection: the peer {}", std::string(status.message()));
    return;
  }
  Hello refusal;
  if (!Admit(pending, hello, &refusal)) {
    spdlog::warn("data plane refused rank {} for rank {} epoch {}: {}", hello.from_rank,
                 hello.to_rank, hello.epoch, ToText(refusal.verdict));
    // The buffer of a new connection is empty; if this fails, closing says enough.
    (void)SendMessage(pending.stream.get(), std::as_bytes(std::span(&refusal, 1)), -1);
  }
}

bool ThreadedHandshakeServer::Admit(Pending& pending, const Hello& hello, Hello* refusal) {
  const Key key{hello.epoch, hello.group_key, hello.from_rank, hello.to_rank};
  absl::MutexLock lock(&mutex_);
  refusal->epoch = oldest_epoch_;
  if (hello.target_key != options_.own_key) {
    refusal->verdict = Verdict::kWrongReceiver;
  } else if (hello.epoch < oldest_epoch_) {
    refusal->verdict = Verdict::kOldEpoch;
  } else if (arrivals_.size() >= kArrivalsMax && !arrivals_.contains(key)) {
    refusal->verdict = Verdict::kTooMany;
  } else {
    arrivals_.insert_or_assign(
        key, Arrival{std::move(pending.stream), std::move(pending.segment), hello});
    return true;
  }
  return false;
}

void ThreadedHandshakeServer::DropStale(SteadyNanos now) {
  while (!pending_.empty() && pending_.front().give_up <= now) {
    spdlog::warn("data plane dropped a connection: {} of {} handshake bytes in time",
                 pending_.front().received, kHelloBytes);
    pending_.pop_front();
  }
  if (now < next_sweep_) return;
  next_sweep_ = now + kSweepInterval;
  absl::MutexLock lock(&mutex_);
  absl::erase_if(arrivals_,
                 [](const auto& entry) { return ConnectionEnded(entry.second.stream.get()); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<HandshakeServer>> HandshakeServer::Create(Options options) {
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) {
    return absl::UnavailableError(std::string("eventfd: ") + std::strerror(errno));
  }
  return std::unique_ptr<HandshakeServer>(
      std::make_unique<ThreadedHandshakeServer>(std::move(options), std::move(stop)));
}

}  // namespace essor::worker
