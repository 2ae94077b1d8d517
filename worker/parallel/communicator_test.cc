// Every exchange, over every transport, against plain loops; ranks are threads.
#include "worker/parallel/communicator.h"

#include <atomic>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/parallel/local_cluster.h"

namespace essor::worker {
namespace {

using ::testing::HasSubstr;

struct Setup {
  std::string name;
  std::string transport;
  std::vector<PlaneSpec> planes;
};

class TransportTest : public ::testing::TestWithParam<Setup> {
 protected:
  TransportTest() : cluster_(GetParam().planes) {}
  void SetUp() override { ASSERT_TRUE(cluster_.create_status().ok()); }
  uint32_t size() const { return cluster_.num_ranks(); }

  LocalCluster cluster_;
};

// Values of very different sizes, so that the order of additions shows in the bits.
std::vector<float> Contribution(uint32_t rank, uint32_t round, size_t count) {
  std::mt19937 random(rank * 7919 + round);
  std::uniform_real_distribution<float> mantissa(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = std::ldexp(mantissa(random), static_cast<int>(random() % 24));
  return values;
}

std::vector<float> SumOfAll(uint32_t members, uint32_t round, size_t count) {
  std::vector<float> sum = Contribution(0, round, count);
  for (uint32_t member = 1; member < members; ++member) {
    const std::vector<float> added = Contribution(member, round, count);
    for (size_t i = 0; i < count; ++i) sum[i] += added[i];
  }
  return sum;
}

template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

std::vector<std::byte> RandomBytes(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& value : bytes) value = static_cast<std::byte>(random());
  return bytes;
}

absl::Status Differs(const std::string& what, uint32_t rank, uint32_t round, size_t count) {
  return absl::DataLossError(
      absl::StrFormat("%s differs on rank %d, round %d, size %d", what, rank, round, count));
}

// The same sizes on all ranks: 0, 1, around the limits of the algorithms, the largest, random ones.
std::vector<size_t> FloatCounts() {
  std::vector<size_t> counts = {0, 1, 2, 3, 5, 576, 1023, 1025, 8191, 8192, 8193, 8195, 60000};
  std::mt19937 random(17);
  for (int i = 0; i < 12; ++i) counts.push_back(random() % 60000);
  return counts;
}
constexpr uint64_t kMaxPayload = 60000 * sizeof(float);

TEST_P(TransportTest, AllReduceAddsInMemberOrder) {
  const std::vector<size_t> counts = FloatCounts();
  const absl::Status status =
      cluster_.OnOneGroup(1, kMaxPayload, [&](uint32_t rank, Communicator& group) -> absl::Status {
        EXPECT_EQ(group.transport(), GetParam().transport);
        EXPECT_EQ(group.index(), rank);
        EXPECT_EQ(group.size(), size());
        for (uint32_t round = 0; round < counts.size(); ++round) {
          std::vector<float> data = Contribution(rank, round, counts[round]);
          ESSOR_RETURN_IF_ERROR(group.AllReduceSum(data));
          if (!SameBits(data, SumOfAll(size(), round, counts[round]))) {
            return Differs("sum", rank, round, counts[round]);
          }
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(TransportTest, AllGatherPutsPartsInMemberOrder) {
  const absl::Status status =
      cluster_.OnOneGroup(1, 100000, [&](uint32_t rank, Communicator& group) -> absl::Status {
        for (const size_t bytes : {0, 1, 63, 64, 4097, 100000}) {
          std::vector<std::byte> expected;
          for (uint32_t member = 0; member < size(); ++member) {
            const std::vector<std::byte> part = RandomBytes(member, bytes);
            expected.insert(expected.end(), part.begin(), part.end());
          }
          std::vector<std::byte> received(bytes * size());
          ESSOR_RETURN_IF_ERROR(group.AllGather(RandomBytes(rank, bytes), received));
          if (!SameBits(received, expected)) return Differs("gathered", rank, 0, bytes);
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

uint64_t PartBytes(uint32_t round, uint32_t from, uint32_t to) {
  std::mt19937 random(round * 10007 + from * 101 + to);
  // Some parts are empty.
  return random() % 4 == 0 ? 0 : random() % (round % 3 == 0 ? 40000 : 300);
}

std::vector<std::byte> Part(uint32_t round, uint32_t from, uint32_t to) {
  return RandomBytes(round * 31 + from * 17 + to, PartBytes(round, from, to));
}

TEST_P(TransportTest, AllToAllExchangesPartsOfDifferentSizes) {
  const absl::Status status =
      cluster_.OnOneGroup(1, 40000 * 8, [&](uint32_t rank, Communicator& group) -> absl::Status {
        for (uint32_t round = 0; round < 20; ++round) {
          std::vector<std::byte> sent;
          std::vector<std::byte> expected;
          std::vector<uint64_t> send_bytes;
          std::vector<uint64_t> receive_bytes;
          for (uint32_t member = 0; member < size(); ++member) {
            const std::vector<std::byte> out = Part(round, rank, member);
            const std::vector<std::byte> in = Part(round, member, rank);
            sent.insert(sent.end(), out.begin(), out.end());
            expected.insert(expected.end(), in.begin(), in.end());
            send_bytes.push_back(out.size());
            receive_bytes.push_back(in.size());
          }
          std::vector<std::byte> received(expected.size());
          ESSOR_RETURN_IF_ERROR(group.AllToAllV(sent, send_bytes, received, receive_bytes));
          if (!SameBits(received, expected)) return Differs("parts", rank, round, sent.size());
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(TransportTest, BroadcastAndBarrierFollowEachOtherInAnyOrder) {
  const absl::Status status =
      cluster_.OnOneGroup(1, 5000, [&](uint32_t rank, Communicator& group) -> absl::Status {
        // Several in a row: a root that runs ahead must not overwrite what others still read.
        for (uint32_t round = 0; round < 200; ++round) {
          const uint32_t root = round % 7 < 4 ? 0 : round % size();
          const size_t bytes = (round * 97) % 5000;
          std::vector<std::byte> data = RandomBytes(rank + 1000 * (round + 1), bytes);
          ESSOR_RETURN_IF_ERROR(group.Broadcast(data, root));
          if (!SameBits(data, RandomBytes(root + 1000 * (round + 1), bytes))) {
            return Differs("broadcast", rank, round, bytes);
          }
          if (round % 5 == 0) ESSOR_RETURN_IF_ERROR(group.Barrier());
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(TransportTest, MessagesPassAlongAChainInOrder) {
  constexpr size_t kBytes = 700000;  // several times a ring or a socket buffer
  const absl::Status status =
      cluster_.OnOneGroup(1, kBytes, [&](uint32_t rank, Communicator& group) -> absl::Status {
        for (uint32_t round = 0; round < 10; ++round) {
          const size_t bytes = round % 2 == 0 ? kBytes - round : round;
          std::vector<std::byte> data(bytes);
          if (rank == 0) {
            data = RandomBytes(round, bytes);
          } else {
            ESSOR_RETURN_IF_ERROR(group.Receive(data, rank - 1));
          }
          if (!SameBits(data, RandomBytes(round, bytes))) {
            return Differs("message", rank, round, bytes);
          }
          if (rank + 1 < size()) ESSOR_RETURN_IF_ERROR(group.Send(data, rank + 1));
        }
        return group.Barrier();
      });
  EXPECT_TRUE(status.ok()) << status;
}

// As much as the contract says is sent before anybody receives, in both directions at once: many
// small messages, and few large ones.
TEST_P(TransportTest, SendsUpToALimitAreBuffered) {
  if (size() == 1) GTEST_SKIP() << "nobody to send to";
  constexpr uint64_t kOverhead = Communicator::kBufferedBytesPerSend;
  for (const uint64_t bytes : {uint64_t{4}, Communicator::kBufferedSendBytes / 2 - kOverhead}) {
    const uint64_t count = Communicator::kBufferedSendBytes / (bytes + kOverhead);
    std::atomic<uint32_t> sent{0};
    const absl::Status status = cluster_.OnOneGroup(
        bytes + 1, kMaxPayload, [&](uint32_t rank, Communicator& group) -> absl::Status {
          if (rank != 0 && rank + 1 != size()) return group.Barrier();
          const uint32_t other = size() - 1 - rank;
          for (uint64_t i = 0; i < count; ++i) {
            ESSOR_RETURN_IF_ERROR(
                group.Send(RandomBytes(rank + static_cast<uint32_t>(2 * i), bytes), other));
          }
          ++sent;
          const absl::Time deadline = Clock::Steady().Now() + absl::Seconds(20);
          while (sent < 2) {
            if (Clock::Steady().Now() > deadline) return absl::InternalError("a send waits");
            std::this_thread::yield();
          }
          for (uint64_t i = 0; i < count; ++i) {
            std::vector<std::byte> data(bytes);
            ESSOR_RETURN_IF_ERROR(group.Receive(data, other));
            if (!SameBits(data, RandomBytes(other + static_cast<uint32_t>(2 * i), bytes))) {
              return Differs("message", rank, static_cast<uint32_t>(i), bytes);
            }
          }
          return group.Barrier();
        });
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_P(TransportTest, ManyMembersMoveOnFewCores) {
  // Far beyond what 1000 rounds take even where every wait sleeps; a lost wake-up costs 10 ms each
  // time and shows as a deadline missed by the loop below only if they are the rule.
  const absl::Status status =
      cluster_.OnOneGroup(1, 4096, [&](uint32_t rank, Communicator& group) -> absl::Status {
        group.SetDeadline(Clock::Steady().Now() + absl::Seconds(50));
        std::vector<float> data(576);
        for (uint32_t round = 0; round < 1000; ++round) {
          std::fill(data.begin(), data.end(), static_cast<float>(rank + round));
          ESSOR_RETURN_IF_ERROR(group.AllReduceSum(data));
          const float expected = static_cast<float>(size() * round + size() * (size() - 1) / 2);
          if (data.front() != expected || data.back() != expected) {
            return Differs("sum", rank, round, data.size());
          }
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(
    All, TransportTest,
    ::testing::Values(Setup{"ShmThreads2", "shm", {{2, true}}},
                      Setup{"ShmThreads8", "shm", {{8, true}}},
                      Setup{"ShmPlanes2", "shm", {{1, true}, {1, true}}},
                      Setup{"ShmPlanesOf2And1", "shm", {{2, true}, {1, true}}},
                      Setup{"Tcp2", "tcp", {{1, false}, {1, false}}},
                      Setup{"Tcp5", "tcp", {{1, false}, {1, false}, {1, false}, {2, false}}},
                      Setup{"Mixed3", "mixed", {{2, true}, {1, false}}},
                      Setup{"Mixed5", "mixed", {{1, true}, {1, false}, {2, true}, {1, false}}},
                      Setup{"Solo", "shm", {{1, true}}}),
    [](const auto& parameters) { return parameters.param.name; });

}  // namespace
}  // namespace essor::worker
