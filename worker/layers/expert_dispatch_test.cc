#include "worker/layers/expert_dispatch.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/model_spec.h"

namespace essor::worker {
namespace {

using testing::ElementsAre;

// Choices of all ranks in the layout that they are gathered in.
struct Step {
  std::vector<uint32_t> num_rows;
  uint32_t top_k = 0;
  uint32_t rows_max = 0;
  std::vector<uint32_t> ids;

  ExpertChoices choices() const {
    return {.ids = ids.data(), .rows_max = rows_max, .top_k = top_k, .num_rows = num_rows};
  }
  const uint32_t* Of(uint32_t rank, uint32_t row) const {
    return ids.data() + (size_t{rank} * rows_max + row) * top_k;
  }
};

// Experts in consecutive parts of random sizes, none empty.
ExpertHolders RandomHolders(std::mt19937& random, uint32_t num_parts, uint32_t num_slices) {
  ExpertHolders holders{
      .num_ranks = num_parts * num_slices, .num_slices = num_slices, .part_of_expert = {}};
  for (uint32_t part = 0; part < num_parts; ++part) {
    holders.part_of_expert.insert(holders.part_of_expert.end(), 1 + random() % 3, part);
  }
  return holders;
}

Step RandomStep(std::mt19937& random, const ExpertHolders& holders) {
  const auto num_experts = static_cast<uint32_t>(holders.part_of_expert.size());
  Step step;
  step.top_k = 1 + static_cast<uint32_t>(random()) % std::min(num_experts, 4u);
  for (uint32_t rank = 0; rank < holders.num_ranks; ++rank) {
    step.num_rows.push_back(random() % 3 == 0 ? 0 : static_cast<uint32_t>(random() % 20));
  }
  step.rows_max = *std::max_element(step.num_rows.begin(), step.num_rows.end());
  std::vector<uint32_t> experts(num_experts);
  std::iota(experts.begin(), experts.end(), 0u);
  for (uint32_t i = 0; i < holders.num_ranks * step.rows_max; ++i) {
    std::shuffle(experts.begin(), experts.end(), random);
    step.ids.insert(step.ids.end(), experts.begin(), experts.begin() + step.top_k);
  }
  return step;
}

// Source rank, row, choice.
using Pair = std::tuple<uint32_t, uint32_t, uint32_t>;

// What `rank` computes in the round for rank `to`, in its order.
std::vector<Pair> ComputedFor(const ExpertHolders& holders, const Step& step,
                              const Dispatch& dispatch, uint32_t rank, uint32_t to) {
  std::vector<Pair> pairs;
  for (const uint32_t received : dispatch.received_rows) {
    const uint32_t source = received / step.rows_max;
    const uint32_t row = received % step.rows_max;
    if (source != to) continue;
    for (uint32_t j = 0; j < step.top_k; ++j) {
      const uint32_t part = holders.part_of_expert[step.Of(source, row)[j]];
      if (part == rank / holders.num_slices) pairs.emplace_back(source, row, j);
    }
  }
  return pairs;
}

uint64_t Sum(const std::vector<uint64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

// Runs a round on all ranks as if by messages, and checks that every slice of every choice of every
// row comes back to where its row is from.
void ExpectComplete(const ExpertHolders& holders, const Step& step, DispatchRound round,
                    uint64_t rows_max) {
  std::vector<Dispatch> all(holders.num_ranks);
  for (uint32_t rank = 0; rank < holders.num_ranks; ++rank) {
    PlanDispatch(holders, step.choices(), round, rank, &all[rank]);
    EXPECT_LE(Sum(all[rank].sent_per_rank), rows_max);
    EXPECT_LE(all[rank].received_rows.size(), rows_max);
    EXPECT_LE(Sum(all[rank].computed_per_rank), rows_max);
    EXPECT_LE(all[rank].returned_rows.size(), rows_max);
  }
  for (uint32_t rank = 0; rank < holders.num_ranks; ++rank) {
    std::vector<Pair> returned;  // in the order of arrival
    std::vector<uint32_t> slices;
    size_t sent = 0;
    for (uint32_t to = 0; to < holders.num_ranks; ++to) {
      ASSERT_EQ(all[rank].sent_per_rank[to], all[to].received_per_rank[rank]);
      size_t received = 0;
      for (uint32_t from = 0; from < rank; ++from) received += all[to].received_per_rank[from];
      for (uint64_t i = 0; i < all[rank].sent_per_rank[to]; ++i) {
        ASSERT_EQ(all[to].received_rows[received + i],
                  rank * step.rows_max + round.begin + all[rank].sent_rows[sent + i]);
      }
      sent += all[rank].sent_per_rank[to];
      const std::vector<Pair> computed = ComputedFor(holders, step, all[to], to, rank);
      ASSERT_EQ(computed.size(), all[to].computed_per_rank[rank]);
      ASSERT_EQ(computed.size(), all[rank].returned_per_rank[to]);
      returned.insert(returned.end(), computed.begin(), computed.end());
      slices.insert(slices.end(), computed.size(), to % holders.num_slices);
    }
    size_t next = 0;
    for (uint32_t row = round.begin; row < std::min(round.end, step.num_rows[rank]); ++row) {
      for (uint32_t j = 0; j < step.top_k; ++j) {
        for (uint32_t s = 0; s < holders.num_slices; ++s) {
          const uint32_t place = all[rank].returned_rows.at(next++);
          ASSERT_EQ(returned.at(place), Pair(rank, row, j));
          ASSERT_EQ(slices.at(place), s);
        }
      }
    }
    ASSERT_EQ(next, all[rank].returned_rows.size());
  }
}

TEST(ExpertDispatchTest, EveryOutputComesBackToItsRow) {
  std::mt19937 random(20261125);
  for (int round = 0; round < 500; ++round) {
    const ExpertHolders holders = RandomHolders(random, 1 + random() % 4, 1 + random() % 3);
    const Step step = RandomStep(random, holders);
    const uint64_t rows_max = uint64_t{holders.num_ranks} * step.top_k + random() % 40;
    uint32_t end = 0;
    for (const DispatchRound& part : PlanRounds(holders, step.choices(), rows_max)) {
      ASSERT_EQ(part.begin, end);
      end = part.end;
      ExpectComplete(holders, step, part, rows_max);
    }
    ASSERT_EQ(end, step.rows_max);
  }
}

// Four rows of two choices each for one of two ranks: eight outputs on rank 0 fit at once or not.
TEST(ExpertDispatchTest, RoundsAreAsLongAsTheBusiestRankAllows) {
  const ExpertHolders holders{.num_ranks = 2, .num_slices = 1, .part_of_expert = {0, 0, 1, 1}};
  Step step{.num_rows = {4, 1}, .top_k = 2, .rows_max = 4, .ids = {}};
  for (int i = 0; i < 8; ++i) step.ids.insert(step.ids.end(), {0, 1});
  EXPECT_EQ(PlanRounds(holders, step.choices(), 10).size(), 1u);
  const std::vector<DispatchRound> rounds = PlanRounds(holders, step.choices(), 9);
  ASSERT_EQ(rounds.size(), 2u);
  EXPECT_EQ(rounds[0].end, 3u);
  EXPECT_EQ(rounds[1].end, 4u);
  // Spread over both ranks only what comes back counts.
  for (uint32_t i = 0; i < 8; ++i) step.ids[2 * i] = 2;
  EXPECT_EQ(PlanRounds(holders, step.choices(), 8).size(), 1u);
  EXPECT_EQ(PlanRounds(holders, step.choices(), 7).size(), 2u);
}

TEST(ExpertDispatchTest, ARowGoesOnceToARankAndToEverySlice) {
  // Experts 0 and 1 on ranks 0 and 1, expert 2 on ranks 2 and 3.
  const ExpertHolders holders{.num_ranks = 4, .num_slices = 2, .part_of_expert = {0, 0, 1}};
  const Step step{
      .num_rows = {0, 2, 0, 0}, .top_k = 2, .rows_max = 2, .ids = {0, 0, 0, 0, 1, 0, 0, 2}};
  Dispatch dispatch;
  Step all = step;
  all.ids.resize(16);
  PlanDispatch(holders, all.choices(), {.begin = 0, .end = 2}, 1, &dispatch);
  EXPECT_THAT(dispatch.sent_per_rank, ElementsAre(2, 2, 1, 1));
  EXPECT_THAT(dispatch.sent_rows, ElementsAre(0, 1, 0, 1, 1, 1));
  EXPECT_THAT(dispatch.returned_per_rank, ElementsAre(3, 3, 1, 1));
  EXPECT_THAT(dispatch.returned_rows, ElementsAre(0, 3, 1, 4, 2, 5, 6, 7));
  PlanDispatch(holders, all.choices(), {.begin = 0, .end = 2}, 3, &dispatch);
  EXPECT_TRUE(dispatch.sent_rows.empty() && dispatch.returned_rows.empty());
  EXPECT_THAT(dispatch.received_rows, ElementsAre(3));
  EXPECT_THAT(dispatch.computed_per_rank, ElementsAre(0, 1, 0, 0));
}

TEST(ExpertDispatchTest, HoldersFollowTheLayout) {
  model::ModelSpec spec{.family = "mixtral", .hidden_size = 8, .vocab_size = 64};
  spec.layers.assign(
      1,
      {.attention = model::GroupedQueryAttention{.num_heads = 1, .num_kv_heads = 1, .head_dim = 8},
       .ffn = model::MoeFfn{.num_experts = 7, .top_k = 2, .intermediate_size = 16}});
  const auto layouts = model::LayoutsOf({.dp = 6, .ep = 3}, spec, 1);
  const ExpertHolders holders = ExpertHolders::Of(layouts[0], 7);
  EXPECT_EQ(holders.num_ranks, 6u);
  EXPECT_EQ(holders.num_slices, 2u);
  for (uint32_t rank = 0; rank < 6; ++rank) {
    const model::Range experts = layouts[rank].per_layer[0].experts;
    for (uint64_t expert = 0; expert < 7; ++expert) {
      const bool here = expert >= experts.begin && expert < experts.end;
      EXPECT_EQ(holders.part_of_expert[expert] == rank / 2, here) << rank << " " << expert;
    }
  }
}

}  // namespace
}  // namespace essor::worker
