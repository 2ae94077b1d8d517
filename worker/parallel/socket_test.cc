#include "worker/parallel/socket.h"

#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string DialError(const std::string& address) {
  return std::string(DialTcp(address).status().message());
}

int CountFds() {
  DIR* directory = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

struct Pair {
  UniqueFd near;
  UniqueFd far;
};
Pair UnixPair() {
  int sockets[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets), 0);
  return {UniqueFd(sockets[0]), UniqueFd(sockets[1])};
}

TEST(SocketTest, AddressesThatAreNoneAreNamed) {
  EXPECT_THAT(DialError(""), HasSubstr("'' is not ip:port"));
  EXPECT_THAT(DialError("1.2.3.4"), HasSubstr("is not ip:port"));
  EXPECT_THAT(DialError("1.2.3.4:"), HasSubstr("has no port"));
  EXPECT_THAT(DialError("1.2.3.4:0"), HasSubstr("has no port"));
  EXPECT_THAT(DialError("1.2.3.4:99999"), HasSubstr("has no port"));
  EXPECT_THAT(DialError("1.2.3.4:12x"), HasSubstr("has no port"));
  EXPECT_THAT(DialError("host:12"), HasSubstr("'host' is not an IP address"));
  EXPECT_EQ(DialAbstract("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DialAbstract(std::string(200, 'a')).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SocketTest, ListenersTellWhereTheyAreDialled) {
  const auto v4 = ListenTcp("127.0.0.1");
  ASSERT_TRUE(v4.ok()) << v4.status();
  EXPECT_THAT(v4->address, StartsWith("127.0.0.1:"));
  EXPECT_TRUE(DialTcp(v4->address).ok());
  if (const auto v6 = ListenTcp("::1"); v6.ok()) {  // some machines have no IPv6
    EXPECT_THAT(v6->address, StartsWith("[::1]:"));
    EXPECT_TRUE(DialTcp(v6->address).ok());
  }
  EXPECT_THAT(std::string(ListenTcp("::").status().message()), HasSubstr("wildcard"));
}

TEST(SocketTest, AnAbstractNameEndsWithItsListener) {
  auto listener = ListenAbstract();
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_THAT(listener->address, StartsWith("essor-"));
  auto stream = DialAbstract(listener->address);
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_TRUE(PeerIsSameUser(stream->get()));
  listener->fd.Reset();
  EXPECT_EQ(DialAbstract(listener->address).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ConnectionEnded(stream->get()));
}

TEST(SocketTest, ADescriptorTravelsWithAMessage) {
  const Pair pair = UnixPair();
  const std::array<std::byte, 3> sent = {std::byte{1}, std::byte{2}, std::byte{3}};
  EXPECT_FALSE(ConnectionEnded(pair.far.get()));
  ASSERT_TRUE(SendMessage(pair.near.get(), sent, pair.near.get()).ok());
  std::array<std::byte, 8> received{};
  const ReceivedPart part = ReceivePart(pair.far.get(), received);
  EXPECT_EQ(part.bytes, 3u);
  EXPECT_FALSE(part.ended);
  ASSERT_TRUE(part.passed.valid());
  EXPECT_NE(part.passed.get(), pair.near.get());
  // Nothing more yet.
  const ReceivedPart nothing = ReceivePart(pair.far.get(), received);
  EXPECT_EQ(nothing.bytes, 0u);
  EXPECT_FALSE(nothing.ended);
}

TEST(SocketTest, TheEndOfAConnectionIsTold) {
  Pair pair = UnixPair();
  pair.near.Reset();
  std::array<std::byte, 8> received{};
  EXPECT_TRUE(ReceivePart(pair.far.get(), received).ended);
  EXPECT_TRUE(ConnectionEnded(pair.far.get()));
  const std::array<std::byte, 1> message{};
  EXPECT_EQ(SendMessage(pair.far.get(), message, -1).code(), absl::StatusCode::kUnavailable);
}

// A stranger may attach as many as the kernel lets it.
TEST(SocketTest, DescriptorsThatNobodyAskedForAreClosed) {
  const Pair pair = UnixPair();
  const int before = CountFds();
  for (const int count : {2, 4, 5, 60}) {
    std::vector<int> attached(static_cast<size_t>(count), pair.near.get());
    std::vector<char> control(CMSG_SPACE(attached.size() * sizeof(int)));
    char byte = 'x';
    iovec part{.iov_base = &byte, .iov_len = 1};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(attached.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), attached.data(), attached.size() * sizeof(int));
    ASSERT_EQ(sendmsg(pair.near.get(), &header, 0), 1);
    std::array<std::byte, 8> received{};
    EXPECT_EQ(ReceivePart(pair.far.get(), received).bytes, 1u);
    EXPECT_EQ(CountFds(), before) << count << " were attached";
  }
}

}  // namespace
}  // namespace essor::worker
