#include "model/plan/cost_model.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace essor::model {
namespace {

TEST(BusiestExpertsTest, KnownCases) {
  const std::vector<uint64_t> halves{4, 4};
  // Two of eight: both in one half with probability 3/7.
  EXPECT_NEAR(BusiestExperts(halves, 2), 2 * 3.0 / 7 + 1 * 4.0 / 7, 1e-12);
  EXPECT_DOUBLE_EQ(BusiestExperts(halves, 8), 4);
  EXPECT_DOUBLE_EQ(BusiestExperts(halves, 0), 0);
  EXPECT_DOUBLE_EQ(BusiestExperts(halves, 1), 1);
  const std::vector<uint64_t> one{8};
  EXPECT_DOUBLE_EQ(BusiestExperts(one, 5), 5);
  const std::vector<uint64_t> singles(8, 1);
  EXPECT_DOUBLE_EQ(BusiestExperts(singles, 3), 1);
}

// Against drawing; the mean of 20000 draws of a figure with a spread below 1 is within 0.03 of its
// expectation at four standard deviations.
TEST(BusiestExpertsTest, AgreesWithDrawing) {
  std::mt19937_64 random(3);
  const std::vector<std::vector<uint64_t>> kSizes = {{2, 3, 3}, {16, 16, 16, 16}, {1, 5, 2}};
  for (const auto& sizes : kSizes) {
    const uint64_t total = std::accumulate(sizes.begin(), sizes.end(), uint64_t{0});
    std::vector<uint32_t> owner;
    for (uint32_t group = 0; group < sizes.size(); ++group) {
      owner.insert(owner.end(), sizes[group], group);
    }
    for (const uint64_t chosen : {uint64_t{2}, total / 2, total - 1}) {
      constexpr int kDraws = 20000;
      double sum = 0;
      for (int draw = 0; draw < kDraws; ++draw) {
        std::shuffle(owner.begin(), owner.end(), random);
        std::vector<uint32_t> count(sizes.size());
        for (uint64_t i = 0; i < chosen; ++i) ++count[owner[i]];
        sum += *std::max_element(count.begin(), count.end());
      }
      EXPECT_NEAR(BusiestExperts(sizes, chosen), sum / kDraws, 0.03);
    }
  }
}

// Hundreds of experts must neither overflow nor take long.
TEST(BusiestExpertsTest, ManyExperts) {
  const std::vector<uint64_t> sizes(8, 64);
  const double busiest = BusiestExperts(sizes, 256);
  EXPECT_GT(busiest, 32);
  EXPECT_LT(busiest, 45);
}

ModelSpec DenseSpec() {
  ModelSpec spec{
      .family = "llama", .hidden_size = 64, .vocab_size = 128, .max_context_tokens = 1024};
  const GroupedQueryAttention attention{.num_heads = 4, .num_kv_heads = 4, .head_dim = 32};
  spec.layers.assign(2, {.attention = attention, .ffn = DenseFfn{.intermediate_size = 96}});
  return spec;
}

Price PriceOf(const ModelSpec& spec, const ParallelPlan& plan, const Hardware& hardware,
              const Workload& workload) {
  const auto ranks = LayoutsOf(plan, spec, 1);
  return PricePlan(
      {.spec = &spec, .plan = plan, .ranks = &ranks, .hardware = hardware, .workload = workload});
}

// One rank: nothing but reading each weight and the cache once.
TEST(CostModelTest, OneRankReadsItsBytes) {
  const Hardware hardware{.memory_bytes_per_second = 1000, .flops = 1e30};
  const Price price = PriceOf(DenseSpec(), {}, hardware, {.batch = 3, .context_tokens = 10});
  const double attention = 2 * (4 * 128 * 64) + 4 * 64;  // bf16 matrices, float32 norm
  const double ffn = 2 * (3 * 96 * 64) + 4 * 64;
  const double cache = 3 * 10 * 2 * 128 * 2;
  const double head = 2 * 128 * 64;
  EXPECT_NEAR(price.step_seconds, (2 * (attention + ffn + cache) + head) / 1000, 1e-9);
  EXPECT_EQ(price.exchange_seconds, 0);
  EXPECT_EQ(price.traffic.total(), 0u);
  EXPECT_NEAR(price.tokens_per_second, 3 / price.step_seconds, 1e-9);
}

ModelSpec LatentSpec() {
  ModelSpec spec = DenseSpec();
  const LatentAttention attention{.num_heads = 4,
                                  .kv_lora_rank = 32,
                                  .nope_head_dim = 16,
                                  .rope_head_dim = 8,
                                  .value_head_dim = 16};
  for (LayerSpec& layer : spec.layers) layer.attention = attention;
  return spec;
}

// The cache is read once for all heads, and whole by every rank; so are the projections to it.
TEST(CostModelTest, LatentsAreReadWholeByEveryRank) {
  const Hardware hardware{.memory_bytes_per_second = 1000,
                          .flops = 1e30,
                          .device_link = {.bytes_per_second = 1e30},
                          .devices_per_node = 2};
  const double latent = 2 * (32 + 32) * 64;  // 32 rows, and 8 that take a tile of 32
  const double cache = 3 * 10 * 40 * 2;
  const double vectors = 4 * (64 + 32 + 64);
  for (const uint32_t tp : {1u, 2u}) {
    const Price price =
        PriceOf(LatentSpec(), {.tp = tp}, hardware, {.batch = 3, .context_tokens = 10});
    const double heads = 4.0 / tp;
    const double query = 2 * (tp == 1 ? 96 : 64) * 64;  // 24 rows a head, in tiles of 32
    const double up = heads * 2 * (32 * 16 + 32 * 32);  // 16 rows of values take a tile of 32
    const double output = 2 * 64 * (heads * 16);
    const double ffn = 2 * (2 * (tp == 1 ? 96 : 64) * 64 + 64.0 * 96 / tp);
    const double head = 2.0 * 128 * 64 / tp;
    EXPECT_NEAR(price.compute_seconds,
                (2 * (query + latent + up + output + cache + ffn + vectors) + head) / 1000, 1e-9)
        << "tp " << tp;
  }
}

// An indexer reads its keys of the whole context, and attention the latents of what it chose.
TEST(CostModelTest, SparseAttentionReadsWhatWasChosen) {
  ModelSpec spec = LatentSpec();
  for (LayerSpec& layer : spec.layers) {
    auto& attention = std::get<LatentAttention>(layer.attention);
    attention.q_lora_rank = 8;
    attention.indexer = SparseIndexer{.num_heads = 3, .head_dim = 16, .top_k = 100};
  }
  const auto seconds = [&](const Hardware& hardware, uint32_t context) {
    return PriceOf(spec, {}, hardware, {.batch = 3, .context_tokens = context}).step_seconds;
  };
  const Hardware slow_memory{.memory_bytes_per_second = 1000, .flops = 1e30};
  EXPECT_NEAR(seconds(slow_memory, 100) - seconds(slow_memory, 50),
              2 * 3 * 50 * (40 + 16) * 2 / 1000.0, 1e-9);
  EXPECT_NEAR(seconds(slow_memory, 900) - seconds(slow_memory, 100), 2 * 3 * 800 * 16 * 2 / 1000.0,
              1e-9);
  const Hardware slow_arithmetic{.memory_bytes_per_second = 1e30, .flops = 1000};
  EXPECT_NEAR(seconds(slow_arithmetic, 900) - seconds(slow_arithmetic, 100),
              2 * 3 * 800 * 2 * 3 * 16 / 1000.0, 1e-6);
}

// With memory for free, multiplying counts: twice the parameters and the attention scores.
TEST(CostModelTest, OneRankMultiplies) {
  const Hardware hardware{.memory_bytes_per_second = 1e30, .flops = 1000};
  const Price price = PriceOf(DenseSpec(), {}, hardware, {.batch = 2, .context_tokens = 10});
  const double parameters = 2 * (4 * 128 * 64 + 64 + 3 * 96 * 64 + 64) + 128 * 64;
  const double scores = 2 * 10 * 4 * 128;
  EXPECT_NEAR(price.step_seconds, (2 * 2 * parameters + 2 * scores) / 1000, 1e-6);
}

// A window is full beyond its size, a chunk half full on average.
TEST(CostModelTest, WindowsAndChunksLimitTheKeysThatAreRead) {
  const Hardware hardware{.memory_bytes_per_second = 1000, .flops = 1e30};
  const auto seconds = [&](uint32_t window, uint32_t chunk, uint32_t context) {
    ModelSpec spec = DenseSpec();
    for (LayerSpec& layer : spec.layers) {
      std::get<GroupedQueryAttention>(layer.attention).sliding_window = window;
      std::get<GroupedQueryAttention>(layer.attention).chunk_size = chunk;
    }
    return PriceOf(spec, {}, hardware, {.batch = 2, .context_tokens = context}).compute_seconds;
  };
  EXPECT_EQ(seconds(0, 9, 9), seconds(0, 0, 9));
  EXPECT_EQ(seconds(0, 9, 1000), seconds(0, 0, 5));
  EXPECT_EQ(seconds(9, 0, 1000), seconds(0, 0, 9));
}

// Four all-reduces of 64 floats and one for the embedding.
TEST(CostModelTest, AllReducesCost) {
  const Hardware hardware{.memory_bytes_per_second = 1e30,
                          .flops = 1e30,
                          .device_link = {.bytes_per_second = 1000, .latency_seconds = 0.5},
                          .network = {.bytes_per_second = 100, .latency_seconds = 7},
                          .devices_per_node = 4};
  Price price = PriceOf(DenseSpec(), {.tp = 4}, hardware, {.batch = 2, .context_tokens = 1});
  const uint64_t sent = 2 * 3 * 64 * 4 / 4;
  EXPECT_EQ(price.traffic.attention, 2 * sent);
  EXPECT_EQ(price.traffic.ffn, 2 * sent);
  EXPECT_EQ(price.traffic.embedding, sent);
  EXPECT_EQ(price.traffic.pipeline, 0u);
  EXPECT_NEAR(price.exchange_seconds, 5 * (0.5 + 2 * sent / 1000.0), 1e-9);

  // Stages on two nodes: groups stay inside a node, only the hand-over crosses.
  price = PriceOf(DenseSpec(), {.pp = 2, .tp = 4}, hardware, {.batch = 1, .context_tokens = 1});
  EXPECT_EQ(price.traffic.pipeline, 64u * 4);
  EXPECT_NEAR(price.exchange_seconds, 5 * (0.5 + sent / 1000.0) + 7 + 256 / 100.0, 1e-9);
}

// Without experts two groups are two models with half of the batch each, the odd one rounded up.
TEST(CostModelTest, GroupsShareTheBatch) {
  const Hardware hardware{.memory_bytes_per_second = 1000, .flops = 1e30};
  const Price two = PriceOf(DenseSpec(), {.dp = 2}, hardware, {.batch = 5, .context_tokens = 10});
  const Price one = PriceOf(DenseSpec(), {}, hardware, {.batch = 3, .context_tokens = 10});
  EXPECT_NEAR(two.step_seconds, one.step_seconds, 1e-9);
  EXPECT_EQ(two.exchange_seconds, 0);
  EXPECT_NEAR(two.tokens_per_second, 5 / one.step_seconds, 1e-9);
}

// Two of eight experts in two parts are in 2 (1 - C(4,2) / C(8,2)) = 11/7 of them. Half of what
// goes and comes stays on the rank.
TEST(CostModelTest, ExchangesWithExpertsCost) {
  ModelSpec spec = DenseSpec();
  for (LayerSpec& layer : spec.layers) {
    layer.ffn = MoeFfn{.num_experts = 8, .top_k = 2, .intermediate_size = 96};
  }
  const Hardware hardware{.memory_bytes_per_second = 1e30,
                          .flops = 1e30,
                          .device_link = {.bytes_per_second = 1000, .latency_seconds = 0.5},
                          .devices_per_node = 4};
  const Workload four{.batch = 4, .context_tokens = 1};
  const double sent = 11.0 / 7 * 64 * 2 / 2;
  const double returned = 2.0 * 64 * 4 / 2;
  const Price whole = PriceOf(spec, {.dp = 2, .ep = 2}, hardware, four);
  EXPECT_EQ(whole.traffic.ffn, 2 * static_cast<uint64_t>(sent + returned + 0.5));
  EXPECT_EQ(whole.traffic.total(), whole.traffic.ffn);
  EXPECT_NEAR(whole.exchange_seconds, 2 * (3 * 0.5 + 2 * (sent + returned) / 1000), 1e-9);

  // Sliced, every row goes to both ranks and comes back from both for each expert.
  const Price sliced = PriceOf(spec, {.dp = 2}, hardware, four);
  EXPECT_NEAR(sliced.exchange_seconds, 2 * (3 * 0.5 + 2 * (64.0 * 2 + 2 * 64 * 4) / 1000), 1e-9);

  // Experts that weigh their inputs take them unrounded.
  for (LayerSpec& layer : spec.layers) std::get<MoeFfn>(layer.ffn).router.weigh_input = true;
  const Price unrounded = PriceOf(spec, {.dp = 2, .ep = 2}, hardware, four);
  EXPECT_NEAR(unrounded.exchange_seconds, 2 * (3 * 0.5 + 2 * (2 * sent + returned) / 1000), 1e-9);
}

// One token of an MoE spread over ranks waits for the rank that got both experts; slices share
// every expert evenly.
TEST(CostModelTest, SlicedExpertsBeatSpreadOnesForOneToken) {
  ModelSpec spec = DenseSpec();
  for (LayerSpec& layer : spec.layers) {
    layer.ffn = MoeFfn{.num_experts = 8, .top_k = 2, .intermediate_size = 4096};
  }
  const Hardware hardware{.memory_bytes_per_second = 1e9, .flops = 1e30};
  const Workload one{.batch = 1, .context_tokens = 1};
  const double sliced = PriceOf(spec, {.tp = 2}, hardware, one).compute_seconds;
  const double spread = PriceOf(spec, {.tp = 2, .ep = 2}, hardware, one).compute_seconds;
  // 10/7 experts instead of 2 halves.
  EXPECT_NEAR(spread / sliced, 10.0 / 7, 0.02);
  // A large batch reads all experts either way.
  const Workload many{.batch = 512, .context_tokens = 1};
  EXPECT_NEAR(PriceOf(spec, {.tp = 2}, hardware, many).compute_seconds,
              PriceOf(spec, {.tp = 2, .ep = 2}, hardware, many).compute_seconds, 1e-4);
}

}  // namespace
}  // namespace essor::model
