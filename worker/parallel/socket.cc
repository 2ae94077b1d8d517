#include "worker/parallel/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

constexpr int kListenBacklog = 256;
constexpr int kSocketFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;
// More than any sender of ours attaches, so that a stranger's extra descriptors are closed too.
constexpr size_t kPassedFdsMax = 4;

// An address for bind and connect.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

absl::StatusOr<SocketAddress> ParseIp(const std::string& ip, uint16_t port) {
  SocketAddress address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.length = sizeof(sockaddr_in);
  } else if (inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.length = sizeof(sockaddr_in6);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("'", ip, "' is not an IP address"));
  }
  return address;
}

bool IsWildcard(const SocketAddress& address) {
  if (address.family() == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr.s_addr == INADDR_ANY;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  return std::memcmp(&v6->sin6_addr, &in6addr_any, sizeof(in6addr_any)) == 0;
}

// "ip:port" or "[ip]:port".
absl::StatusOr<SocketAddress> ParseAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  uint16_t port = 0;
  if (colon == std::string::npos || colon == 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not ip:port"));
  }
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end || port == 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' has no port of 1 to 65535"));
  }
  std::string ip = text.substr(0, colon);
  if (ip.front() == '[' && ip.back() == ']') ip = ip.substr(1, ip.size() - 2);
  return ParseIp(ip, port);
}

absl::StatusOr<SocketAddress> AbstractAddress(const std::string& name) {
  SocketAddress address;
  auto* unix_address = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (name.empty() || name.size() + 1 > sizeof(unix_address->sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("abstract socket name of %d bytes", name.size()));
  }
  unix_address->sun_family = AF_UNIX;
  std::memcpy(unix_address->sun_path + 1, name.data(), name.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

absl::Status SystemError(const std::string& what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(error)));
}

absl::StatusOr<UniqueFd> BindAndListen(const SocketAddress& address, const std::string& label) {
  UniqueFd fd(socket(address.family(), SOCK_STREAM | kSocketFlags, 0));
  if (!fd.valid()) return SystemError("socket", errno);
  if (bind(fd.get(), address.get(), address.length) != 0) {
    return SystemError(absl::StrCat("cannot listen on ", label), errno);
  }
  if (listen(fd.get(), kListenBacklog) != 0) {
    return SystemError(absl::StrCat("cannot listen on ", label), errno);
  }
  return fd;
}

absl::StatusOr<UniqueFd> Dial(const SocketAddress& address, const std::string& label) {
  UniqueFd fd(socket(address.family(), SOCK_STREAM | kSocketFlags, 0));
  if (!fd.valid()) return SystemError("socket", errno);
  if (connect(fd.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    return SystemError(absl::StrCat("cannot reach ", label), errno);
  }
  return fd;
}

}  // namespace

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

absl::StatusOr<Listener> ListenTcp(const std::string& ip) {
  ESSOR_ASSIGN_OR_RETURN(SocketAddress address, ParseIp(ip, 0));
  if (IsWildcard(address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data plane's address ", ip, " is a wildcard: peers could not dial it"));
  }
  Listener listener;
  ESSOR_ASSIGN_OR_RETURN(listener.fd, BindAndListen(address, ip));
  if (getsockname(listener.fd.get(), address.get(), &address.length) != 0) {
    return SystemError("getsockname", errno);
  }
  const bool is_v6 = address.family() == AF_INET6;
  const uint16_t port =
      ntohs(is_v6 ? reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port
                  : reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
  listener.address = is_v6 ? absl::StrCat("[", ip, "]:", port) : absl::StrCat(ip, ":", port);
  return listener;
}

absl::StatusOr<Listener> ListenAbstract() {
  uint64_t random[2];
  if (getrandom(random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) {
    return SystemError("getrandom", errno);
  }
  Listener listener;
  listener.address = absl::StrFormat("essor-%016x%016x", random[0], random[1]);
  ESSOR_ASSIGN_OR_RETURN(const SocketAddress address, AbstractAddress(listener.address));
  ESSOR_ASSIGN_OR_RETURN(listener.fd, BindAndListen(address, listener.address));
  return listener;
}

absl::StatusOr<UniqueFd> DialTcp(const std::string& address) {
  ESSOR_ASSIGN_OR_RETURN(const SocketAddress parsed, ParseAddress(address));
  ESSOR_ASSIGN_OR_RETURN(UniqueFd fd, Dial(parsed, address));
  TuneTcp(fd.get());
  return fd;
}

absl::StatusOr<UniqueFd> DialAbstract(const std::string& name) {
  ESSOR_ASSIGN_OR_RETURN(const SocketAddress address, AbstractAddress(name));
  return Dial(address, name);
}

int ConnectError(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

void ReserveBuffers(int fd, uint64_t bytes) {
  // The kernel counts its own records of what it holds, up to as much again.
  const int wanted = static_cast<int>(2 * bytes);
  int domain = AF_UNIX;
  socklen_t length = sizeof(domain);
  (void)getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
  // Between hosts unread bytes wait at the receiver, in a Unix socket at the sender.
  const int option = domain == AF_UNIX ? SO_SNDBUF : SO_RCVBUF;
  int present = 0;
  length = sizeof(present);
  if (getsockopt(fd, SOL_SOCKET, option, &present, &length) == 0 && present >= wanted) return;
  (void)setsockopt(fd, SOL_SOCKET, option, &wanted, sizeof(wanted));
}

void TuneTcp(int fd) {
  constexpr int kOn = 1;
  constexpr int kIdleSeconds = 4;
  constexpr int kIntervalSeconds = 2;
  constexpr int kProbes = 3;
  // Failure costs latency only.
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof(kOn));
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &kOn, sizeof(kOn));
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kIdleSeconds, sizeof(kIdleSeconds));
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kIntervalSeconds, sizeof(kIntervalSeconds));
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kProbes, sizeof(kProbes));
}

bool PeerIsSameUser(int fd) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 &&
         credentials.uid == geteuid();
}

bool ConnectionEnded(int fd) {
  pollfd entry{.fd = fd, .events = POLLIN | POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) > 0;
}

absl::Status SendMessage(int fd, std::span<const std::byte> message, int passed_fd) {
  iovec part{.iov_base = const_cast<std::byte*>(message.data()), .iov_len = message.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (passed_fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &passed_fd, sizeof(int));
  }
  const ssize_t sent = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0) return SystemError("cannot send the handshake", errno);
  if (static_cast<size_t>(sent) != message.size()) {
    return absl::UnavailableError("cannot send the whole handshake");
  }
  return absl::OkStatus();
}

ReceivedPart ReceivePart(int fd, std::span<std::byte> into) {
  iovec part{.iov_base = into.data(), .iov_len = into.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(kPassedFdsMax * sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t came = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  ReceivedPart result;
  if (came < 0) {
    result.ended = errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
    return result;
  }
  result.bytes = static_cast<size_t>(came);
  result.ended = came == 0;
  for (cmsghdr* entry = CMSG_FIRSTHDR(&header); entry != nullptr;
       entry = CMSG_NXTHDR(&header, entry)) {
    if (entry->cmsg_level != SOL_SOCKET || entry->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (entry->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int passed = -1;
      std::memcpy(&passed, CMSG_DATA(entry) + i * sizeof(int), sizeof(int));
      result.passed.Reset(passed);  // the last one counts, the others are closed
    }
  }
  return result;
}

}  // namespace essor::worker
