#include "worker/layers/spread_norm.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_stream.h"
#include "worker/parallel/local_cluster.h"

namespace essor::worker {
namespace {

constexpr uint32_t kRows = 5;
constexpr float kEps = 1e-6f;
constexpr uint64_t kMaxPayload = kRows * SpreadNorm::kMaxNorms * sizeof(float);

std::vector<float> RandomFloats(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// What a rank holds of one norm's rows: columns [begin, end).
struct Held {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool counts = true;
};

// Rows of one norm, with their weights, as one device would hold them.
struct Rows {
  Rows(uint32_t columns, uint32_t seed)
      : width(columns),
        x(RandomFloats(kRows * columns, seed)),
        weight(RandomFloats(columns, seed + 1)) {}

  // In double.
  double Normalised(uint32_t row, uint32_t column) const {
    double squares = 0;
    for (uint32_t i = 0; i < width; ++i) squares += std::pow(double{x[row * width + i]}, 2);
    return x[row * width + column] / std::sqrt(squares / width + kEps) * weight[column];
  }

  std::vector<float> Columns(const Held& held) const {
    std::vector<float> columns;
    for (uint32_t row = 0; row < kRows; ++row) {
      const auto begin = x.begin() + row * width;
      columns.insert(columns.end(), begin + held.begin, begin + held.end);
    }
    return columns;
  }

  uint32_t width;
  std::vector<float> x;
  std::vector<float> weight;
};

// Errors of some tens of additions of squares (halved by the root) and of five more roundings.
constexpr double kTolerance = 1e-5;

absl::Status CheckColumns(const Rows& rows, const Held& held, const std::vector<float>& got) {
  const uint32_t width = held.end - held.begin;
  for (uint32_t i = 0; i < kRows * width; ++i) {
    const double expected = rows.Normalised(i / width, held.begin + i % width);
    if (std::abs(got[i] - expected) > kTolerance * std::abs(expected)) {
      return absl::DataLossError(absl::StrFormat("row %d column %d is %g, not %g", i / width,
                                                 held.begin + i % width, got[i], expected));
    }
  }
  return absl::OkStatus();
}

SpreadColumns ColumnsOf(const Rows& rows, const Held& held, std::vector<float>& x) {
  const uint32_t width = held.end - held.begin;
  return {.x = x.data(),
          .stride = width,
          .width = width,
          .weight = rows.weight.data() + held.begin,
          .total_width = rows.width,
          .counts = held.counts};
}

// One rank's part in a call with two norms.
absl::Status ApplyBoth(Communicator& group, const Rows& q, const Held& q_held, const Rows& k,
                       const Held& k_held, std::vector<float>* k_out) {
  auto stream = kernels::CpuStream::Create({.threads = {.num_threads = 1}});
  std::vector<float> squares(kRows * SpreadNorm::kMaxNorms);
  std::vector<float> q_x = q.Columns(q_held);
  std::vector<float> k_x = k.Columns(k_held);
  SpreadNorm norm(kEps, squares.data(), &group, stream.get());
  const SpreadColumns norms[] = {ColumnsOf(q, q_held, q_x), ColumnsOf(k, k_held, k_x)};
  ESSOR_RETURN_IF_ERROR(norm.Apply(kRows, norms));
  ESSOR_RETURN_IF_ERROR(CheckColumns(q, q_held, q_x));
  ESSOR_RETURN_IF_ERROR(CheckColumns(k, k_held, k_x));
  *k_out = std::move(k_x);
  return absl::OkStatus();
}

// Three ranks: queries in uneven parts, of which one is empty; keys of which two ranks hold copies
// of the same columns.
TEST(SpreadNormTest, NormalisesOverTheWholeRowAndCountsCopiesOnce) {
  const Rows q(70, 1);
  const Rows k(24, 3);
  const Held q_held[] = {{0, 41}, {41, 70}, {70, 70}};
  const Held k_held[] = {{0, 16}, {16, 24}, {16, 24, /*counts=*/false}};
  LocalCluster cluster({{.num_ranks = 2}, {.num_ranks = 1, .allow_shared_memory = false}});
  ASSERT_TRUE(cluster.create_status().ok()) << cluster.create_status();
  std::vector<std::vector<float>> keys(3);
  const absl::Status status =
      cluster.OnOneGroup(1, kMaxPayload, [&](uint32_t rank, Communicator& group) {
        return ApplyBoth(group, q, q_held[rank], k, k_held[rank], &keys[rank]);
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(keys[1], keys[2]);
}

TEST(SpreadNormTest, OneRankNormalisesItsOwnRows) {
  const Rows q(64, 1);
  const Rows k(8, 3);
  LocalCluster cluster(std::vector<PlaneSpec>{{.num_ranks = 1}});
  ASSERT_TRUE(cluster.create_status().ok()) << cluster.create_status();
  std::vector<float> keys;
  const absl::Status status =
      cluster.OnOneGroup(1, kMaxPayload, [&](uint32_t, Communicator& group) {
        return ApplyBoth(group, q, {0, 64}, k, {0, 8}, &keys);
      });
  EXPECT_TRUE(status.ok()) << status;
}

// Every rank of a group gets the error; nothing is normalised with half a sum.
TEST(SpreadNormTest, AnswersTheErrorOfTheExchange) {
  const Rows q(8, 1);
  const Rows k(4, 3);
  LocalCluster cluster(std::vector<PlaneSpec>{{.num_ranks = 2}});
  ASSERT_TRUE(cluster.create_status().ok()) << cluster.create_status();
  std::vector<float> keys(2);
  const absl::Status status =
      cluster.OnOneGroup(1, kMaxPayload, [&](uint32_t rank, Communicator& group) {
        ESSOR_RETURN_IF_ERROR(group.Barrier());
        if (rank == 1) return absl::OkStatus();  // does not come to the norm
        group.SetDeadline(Clock::Steady().Now() + absl::Milliseconds(50));
        return ApplyBoth(group, q, {0, 4}, k, {0, 2}, &keys);
      });
  EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) << status;
  EXPECT_EQ(keys, std::vector<float>(2));
}

}  // namespace
}  // namespace essor::worker
