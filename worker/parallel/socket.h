// Sockets of the data plane: TCP and Unix sockets in the abstract namespace (which leave no file
// behind). Everything here is non-blocking and close-on-exec. Functions are thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace essor::worker {

// Owns a file descriptor; -1 = none.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

struct Listener {
  UniqueFd fd;
  std::string address;  // TCP: ip:port as dialled; abstract: the name
};

// InvalidArgument when `ip` is not an address of one interface (a name, a wildcard); Unavailable
// when it cannot be bound.
absl::StatusOr<Listener> ListenTcp(const std::string& ip);
// With a random name "essor-<32 hex digits>".
absl::StatusOr<Listener> ListenAbstract();

// Has the kernel hold at least `bytes` that the other end has not read yet, in each direction.
// Where it would anyhow, buffers keep the sizes that the kernel chooses.
void ReserveBuffers(int fd, uint64_t bytes);

// Starts a connection; it is up (or failed, see ConnectError) once the socket is writable.
absl::StatusOr<UniqueFd> DialTcp(const std::string& address);
absl::StatusOr<UniqueFd> DialAbstract(const std::string& name);
// errno of a connection under way; 0 = up.
int ConnectError(int fd);
// For a TCP connection: small messages leave at once, and a peer whose host vanished without a word
// is noticed within about ten seconds even where no deadline is set.
void TuneTcp(int fd);

// Whether the process at the other end of a Unix socket runs under our user id.
bool PeerIsSameUser(int fd);

// True once the other end is closed or reset, or sent something on a connection that is not read.
bool ConnectionEnded(int fd);

// Sends all of `message` with `passed_fd` attached (-1 = none) into an empty socket buffer.
// Unavailable when it does not fit or the peer is gone.
absl::Status SendMessage(int fd, std::span<const std::byte> message, int passed_fd);

struct ReceivedPart {
  size_t bytes = 0;
  bool ended = false;  // the other end is closed or reset
  UniqueFd passed;     // attached to this part, if any
};
// Takes what is there, at most `into`; 0 bytes and not ended = nothing yet.
ReceivedPart ReceivePart(int fd, std::span<std::byte> into);

}  // namespace essor::worker
