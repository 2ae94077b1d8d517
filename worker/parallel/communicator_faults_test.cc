// What goes wrong between members of one process: aborts, deadlines, members that leave, calls that
// do not fit, strangers at the door, lies in shared memory.
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/parallel/group_member.h"
#include "worker/parallel/local_cluster.h"
#include "worker/parallel/segment.h"
#include "worker/parallel/shm_member.h"
#include "worker/parallel/socket.h"
#include "worker/parallel/wire.h"

namespace essor::worker {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

struct Setup {
  std::string name;
  std::vector<PlaneSpec> planes;
};

class FaultsTest : public ::testing::TestWithParam<Setup> {
 protected:
  FaultsTest() : cluster_(GetParam().planes) {}
  void SetUp() override { ASSERT_TRUE(cluster_.create_status().ok()); }

  // One communicator over all ranks per rank; empty when one failed.
  std::vector<std::unique_ptr<Communicator>> Connect(uint64_t epoch) {
    std::vector<std::unique_ptr<Communicator>> groups(cluster_.num_ranks());
    const absl::Status status = cluster_.OnEveryRank([&](uint32_t rank) -> absl::Status {
      auto connected =
          cluster_.Connect(epoch, rank, {{"tp", cluster_.AllRanks()}}, 1 << 20, absl::Seconds(20));
      if (!connected.ok()) return connected.status();
      groups[rank] = std::move(connected->front());
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return groups;
  }

  LocalCluster cluster_;
};

TEST_P(FaultsTest, AbortWakesAWaiterAndANewEpochWorks) {
  auto groups = Connect(1);
  absl::Status waited;
  const absl::Time start = Clock::Steady().Now();
  std::thread waiter([&] { waited = groups[0]->Barrier(); });
  absl::SleepFor(absl::Milliseconds(50));  // it sleeps now
  cluster_.plane(0).Abort(1, "worker 2 is lost");
  waiter.join();
  // Its deadline is 20 s away.
  EXPECT_LT(Clock::Steady().Now() - start, absl::Seconds(5));
  EXPECT_EQ(waited.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(waited), HasSubstr("group tp (epoch 1), barrier: member"));
  EXPECT_THAT(Text(waited), HasSubstr("epoch 1 was aborted: worker 2 is lost"));
  EXPECT_EQ(groups[0]->Barrier(), waited) << "a dead group stays dead";

  // The abort of an epoch ends older ones too, and never a newer one.
  auto again = cluster_.Connect(1, 0, {{"tp", {0}}}, 64, absl::Seconds(1));
  EXPECT_EQ(again.status().code(), absl::StatusCode::kUnavailable);
  groups.clear();
  auto next = Connect(2);
  const absl::Status status =
      cluster_.OnEveryRank([&](uint32_t rank) { return next[rank]->Barrier(); });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(FaultsTest, AnAbortedCallFailsAtOnce) {
  auto groups = Connect(1);
  cluster_.plane(0).Abort(1, "drained");
  std::vector<float> data(4);
  const absl::Status status = groups[0]->AllReduceSum(data);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(status), HasSubstr("epoch 1 was aborted: drained"));
}

TEST_P(FaultsTest, ADeadlineEndsAWaitAndTheGroup) {
  auto groups = Connect(1);
  groups[0]->SetDeadline(Clock::Steady().Now() + absl::Milliseconds(100));
  std::vector<float> data(4);
  const absl::Status status = groups[0]->AllReduceSum(data);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Text(status), HasSubstr("group tp (epoch 1), all_reduce: member 1 (rank 1) did not "
                                      "come in time"));
  // The others need not wait for their own deadline once they wait for this member.
  groups[1]->SetDeadline(Clock::Steady().Now() + absl::Seconds(20));
  std::vector<std::byte> message(1);
  const absl::Status other = groups[1]->Receive(message, 0);
  EXPECT_THAT(other.code(), AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kInternal));
}

TEST_P(FaultsTest, AMemberThatLeavesIsNoticed) {
  auto groups = Connect(1);
  std::thread leaver([&] {
    absl::SleepFor(absl::Milliseconds(50));
    groups[1].reset();
  });
  std::vector<std::byte> message(1);
  const absl::Status status = groups[0]->Receive(message, 1);
  leaver.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(status), HasSubstr("group tp (epoch 1), receive: member 1 (rank 1) is gone"));
}

TEST_P(FaultsTest, WhatAMemberSentBeforeItLeftStillCounts) {
  auto groups = Connect(1);
  const std::vector<std::byte> sent(1000, std::byte{7});
  ASSERT_TRUE(groups[1]->Send(sent, 0).ok());
  groups[1].reset();
  std::vector<std::byte> received(1000);
  EXPECT_TRUE(groups[0]->Receive(received, 1).ok());
  EXPECT_EQ(received, sent);
}

TEST_P(FaultsTest, CallsThatDoNotFitTheGroupAreInvalid) {
  {
    auto groups = Connect(1);
    std::vector<float> data((1 << 18) + 1);
    const absl::Status status = groups[0]->AllReduceSum(data);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(status), HasSubstr("payload of 1048580 bytes, but the group was formed for at "
                                        "most 1048576"));
  }
  {
    auto groups = Connect(2);
    const std::vector<std::byte> sent(10);
    std::vector<std::byte> received(10);
    const std::vector<uint64_t> sizes(cluster_.num_ranks(), uint64_t{1} << 63);
    const absl::Status status = groups[0]->AllToAllV(sent, sizes, received, sizes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(status), HasSubstr("part sizes do not add up to the 10 bytes sent"));
  }
  {
    auto groups = Connect(3);
    const std::vector<std::byte> sent(10);
    const absl::Status status = groups[0]->Send(sent, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(status), HasSubstr("member 0, seen from member 0 of"));
  }
  {
    auto groups = Connect(4);
    std::vector<std::byte> received(10);
    const absl::Status status = groups[0]->AllGather({}, received);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(status), HasSubstr("10 bytes for"));
  }
}

TEST_P(FaultsTest, MembersThatDisagreeAboutTheCallNotice) {
  auto groups = Connect(1);
  std::vector<absl::Status> statuses(cluster_.num_ranks());
  (void)cluster_.OnEveryRank([&](uint32_t rank) {
    std::vector<float> data(rank == 1 ? 9 : 8);
    statuses[rank] = groups[rank]->AllReduceSum(data);
    return absl::OkStatus();
  });
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kInternal) << statuses[0];
  EXPECT_THAT(Text(statuses[0]), HasSubstr("all_reduce: member 1 (rank 1) is at another call"));
  EXPECT_THAT(Text(statuses[0]), HasSubstr("36 bytes; expected"));
  EXPECT_FALSE(statuses[1].ok());
}

TEST_P(FaultsTest, LimitsThatDifferAreNamed) {
  std::vector<absl::Status> statuses(cluster_.num_ranks());
  (void)cluster_.OnEveryRank([&](uint32_t rank) {
    statuses[rank] = cluster_
                         .Connect(1, rank, {{"tp", cluster_.AllRanks()}}, rank == 1 ? 4096 : 8192,
                                  absl::Seconds(2))
                         .status();
    return absl::OkStatus();
  });
  // Whoever notices first may be gone before the other one can.
  const auto named = std::find_if(statuses.begin(), statuses.end(), [](const absl::Status& status) {
    return absl::IsInvalidArgument(status);
  });
  ASSERT_NE(named, statuses.end()) << statuses[0];
  EXPECT_THAT(Text(*named), AnyOf(HasSubstr("wants payloads of 4096 bytes, this rank 8192"),
                                  HasSubstr("wants payloads of 8192 bytes, this rank 4096")));
  for (const absl::Status& status : statuses) EXPECT_FALSE(status.ok());
}

// Dials the data plane's TCP port and says `text`.
UniqueFd Stranger(const DataEndpoint& endpoint, const std::string& text) {
  auto stream = DialTcp(endpoint.tcp_address);
  EXPECT_TRUE(stream.ok()) << stream.status();
  while (ConnectError(stream->get()) == EINPROGRESS) {
  }
  if (!text.empty()) {
    EXPECT_EQ(send(stream->get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  return *std::move(stream);
}

TEST_P(FaultsTest, StrangersAtTheDoorDisturbNobody) {
  const DataEndpoint endpoint = cluster_.plane(0).endpoint();
  std::vector<UniqueFd> strangers;
  strangers.push_back(Stranger(endpoint, "GET / HTTP/1.1\r\n\r\n"));
  strangers.push_back(Stranger(endpoint, std::string(100000, 'x')));
  Hello wrong{.version = 77};
  strangers.push_back(
      Stranger(endpoint, std::string(reinterpret_cast<const char*>(&wrong), sizeof(wrong))));
  wrong = {.epoch = 1, .group_key = 5, .target_key = 99};
  strangers.push_back(
      Stranger(endpoint, std::string(reinterpret_cast<const char*>(&wrong), sizeof(wrong))));
  if (!endpoint.shm_name.empty()) {
    auto stream = DialAbstract(endpoint.shm_name);
    ASSERT_TRUE(stream.ok()) << stream.status();
    ASSERT_TRUE(SendMessage(stream->get(), std::as_bytes(std::span(&wrong, 1)), 0).ok());
    strangers.push_back(*std::move(stream));
  }
  // More silent ones than are let in at a time: they are put out after a while.
  for (int i = 0; i < 150; ++i) strangers.push_back(Stranger(endpoint, ""));
  auto groups = Connect(1);
  const absl::Status status =
      cluster_.OnEveryRank([&](uint32_t rank) { return groups[rank]->Barrier(); });
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(All, FaultsTest,
                         ::testing::Values(Setup{"ShmThreads", {{2, true}}},
                                           Setup{"ShmPlanes", {{1, true}, {1, true}}},
                                           Setup{"Tcp", {{1, false}, {1, false}}},
                                           Setup{"Mixed", {{2, true}, {1, false}}}),
                         [](const auto& parameters) { return parameters.param.name; });

TEST(DataPlaneTest, RefusesRequestsThatMakeNoSense) {
  LocalCluster cluster({{2, true}});
  const auto message = [&](uint64_t epoch, uint32_t rank, const std::vector<GroupSpec>& groups,
                           uint64_t max_payload_bytes) {
    const auto result =
        cluster.Connect(epoch, rank, groups, max_payload_bytes, absl::Milliseconds(1));
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return Text(result.status());
  };
  EXPECT_THAT(message(0, 0, {}, 1), HasSubstr("epoch 0, rank 0 of 2"));
  EXPECT_THAT(message(1, 0, {}, uint64_t{1} << 40),
              HasSubstr("payloads of 1099511627776 bytes wanted, the data plane's limit is"));
  EXPECT_THAT(message(1, 0, {{"tp", {0, 0}}}, 1), HasSubstr("group tp names rank 0 twice"));
  EXPECT_THAT(message(1, 0, {{"tp", {0, 7}}}, 1), HasSubstr("beyond the epoch's 2 ranks"));
  EXPECT_THAT(message(1, 0, {{"tp", {1}}}, 1), HasSubstr("does not contain rank 0"));
  EXPECT_THAT(message(1, 0, {{"tp", {0}}, {"tp", {0}}}, 1), HasSubstr("two groups are named tp"));

  LocalCluster other({{1, true}});
  const auto misplaced =
      other.plane(0).Connect(cluster.members(1), 0, {}, 1, absl::InfiniteFuture());
  EXPECT_EQ(misplaced.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(misplaced.status()), HasSubstr("rank 0 is placed at"));
}

TEST(DataPlaneTest, SaysWhatIsWrongWithAnAddress) {
  EXPECT_THAT(Text(DataPlane::Create({.listen_ip = "0.0.0.0"}).status()),
              HasSubstr("0.0.0.0 is a wildcard"));
  EXPECT_THAT(Text(DataPlane::Create({.listen_ip = "localhost"}).status()),
              HasSubstr("'localhost' is not an IP address"));
  // Documentation addresses (RFC 5737) belong to no interface.
  const absl::Status foreign = DataPlane::Create({.listen_ip = "192.0.2.1"}).status();
  EXPECT_EQ(foreign.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(foreign), HasSubstr("cannot listen on 192.0.2.1"));
}

TEST(DataPlaneTest, ServesSeveralGroupsOfOneRank) {
  LocalCluster cluster({{2, true}, {2, false}});
  const absl::Status status = cluster.OnEveryRank([&](uint32_t rank) -> absl::Status {
    const uint32_t stage = rank / 2;
    const std::vector<GroupSpec> groups = {{"tp", {2 * stage, 2 * stage + 1}},
                                           {"pp", {rank % 2, rank % 2 + 2}},
                                           {"all", {3, 2, 1, 0}}};
    auto connected = cluster.Connect(1, rank, groups, 4096, absl::Seconds(20));
    if (!connected.ok()) return connected.status();
    EXPECT_EQ((*connected)[0]->transport(), stage == 0 ? "shm" : "tcp");
    EXPECT_EQ((*connected)[1]->transport(), "tcp");
    EXPECT_EQ((*connected)[2]->transport(), "mixed");
    EXPECT_EQ((*connected)[2]->index(), 3 - rank);
    for (int round = 0; round < 50; ++round) {
      for (const auto& group : *connected) {
        std::vector<float> data(100, static_cast<float>(rank));
        if (const absl::Status reduced = group->AllReduceSum(data); !reduced.ok()) return reduced;
      }
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// A peer whose segment says what it wants: no process behind it keeps to the rules.
class LyingPeerTest : public ::testing::Test {
 protected:
  LyingPeerTest() {
    SegmentIdentity identity{
        .epoch = 1, .group_key = 5, .member = 0, .group_size = 2, .max_payload_bytes = 4096};
    auto own = Segment::Create(identity);
    identity.member = 1;
    auto peer = Segment::Create(identity);
    EXPECT_TRUE(own.ok() && peer.ok());
    peer_ = peer->segment;
    std::vector<ShmPeer> peers(2);
    peers[1].segment = peer_;
    group_ = MakeShmMember({.name = "tp",
                            .epoch = 1,
                            .ranks = {0, 1},
                            .index = 0,
                            .max_payload_bytes = 4096,
                            .deadline = Clock::Steady().Now() + absl::Seconds(5),
                            .fence = std::make_shared<EpochFence>()},
                           own->segment, std::move(peers));
  }
  void Announce(uint32_t sequence, Operation operation, uint64_t bytes) {
    Announcement& announcement = peer_->announcement();
    announcement.records[sequence & 1].operation.store(static_cast<uint32_t>(operation));
    announcement.records[sequence & 1].bytes.store(bytes);
    announcement.sequence.store(sequence);
  }

  std::shared_ptr<Segment> peer_;
  std::unique_ptr<Communicator> group_;
};

TEST_F(LyingPeerTest, ANumberFromTheFutureIsRefused) {
  Announce(100, Operation::kBarrier, 0);
  const absl::Status status = group_->Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Text(status), HasSubstr("announced exchange 100 while this member is in 1"));
}

TEST_F(LyingPeerTest, AnotherSizeIsRefused) {
  Announce(1, Operation::kAllReduce, 1 << 30);
  std::vector<float> data(8);
  const absl::Status status = group_->AllReduceSum(data);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Text(status), HasSubstr("1073741824 bytes; expected operation 1, call 1, 32 bytes"));
}

TEST_F(LyingPeerTest, APartOutsideTheSlotIsRefused) {
  peer_->part(1, 0).offset.store(~uint64_t{0});
  peer_->part(1, 0).bytes.store(8);
  Announce(1, Operation::kAllToAllV, 0);
  const std::vector<std::byte> sent(8);
  std::vector<std::byte> received(8);
  const std::vector<uint64_t> sizes = {0, 8};
  const absl::Status status = group_->AllToAllV(sent, sizes, received, sizes);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Text(status), HasSubstr("sent 8 bytes at 18446744073709551615"));
}

TEST_F(LyingPeerTest, ARingBeyondItsCapacityIsRefused) {
  peer_->ring_written(0).store(1 << 30);
  std::vector<std::byte> received(8);
  const absl::Status status = group_->Receive(received, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Text(status), HasSubstr("sent more bytes than fit"));
}

TEST_F(LyingPeerTest, AReaderAheadOfTheWriterIsRefused) {
  peer_->ring_read(0).store(12345);
  const std::vector<std::byte> sent(8);
  const absl::Status status = group_->Send(sent, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Text(status), HasSubstr("took bytes that were not sent"));
}

TEST_F(LyingPeerTest, AMessageWithAnotherHeaderIsRefused) {
  std::memset(peer_->ring(0), 0xab, kFrameHeaderBytes);
  peer_->ring_written(0).store(kFrameHeaderBytes);
  std::vector<std::byte> received(8);
  const absl::Status status = group_->Receive(received, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Text(status), HasSubstr("sent a damaged frame (magic abababab)"));
}

}  // namespace
}  // namespace essor::worker
