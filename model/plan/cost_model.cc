#include "model/plan/cost_model.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "model/plan/attention_shape.h"
#include "model/plan/memory_plan.h"
#include "model/plan/weight_slices.h"
#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

constexpr uint64_t kActivationBytes = 4;

// What one rank reads and multiplies.
struct Work {
  double bytes = 0;
  double flops = 0;
};

double SecondsOf(const Work& work, const Hardware& hardware) {
  return std::max(work.bytes / hardware.memory_bytes_per_second, work.flops / hardware.flops);
}

struct Exchange {
  double seconds = 0;
  uint64_t bytes = 0;  // sent per rank, for one token
};

class Pricer {
 public:
  explicit Pricer(const PriceRequest& request) : request_(request), spec_(*request.spec) {}

  Price Run() {
    Price price;
    const uint32_t ranks = request_.plan.RanksPerStage();
    for (uint32_t stage = 0; stage < request_.plan.pp; ++stage) {
      const std::span<const RankLayout> members =
          std::span(*request_.ranks).subspan(size_t{stage} * ranks, ranks);
      const Price of_stage = PriceStage(members);
      price.compute_seconds += of_stage.compute_seconds;
      price.exchange_seconds += of_stage.exchange_seconds;
      if (of_stage.traffic.total() > price.traffic.total()) price.traffic = of_stage.traffic;
    }
    price.step_seconds = price.compute_seconds + price.exchange_seconds;
    price.tokens_per_second = request_.workload.batch / price.step_seconds;
    return price;
  }

 private:
  Price PriceStage(std::span<const RankLayout> members) {
    Price price;
    const RankLayout& first = members.front();
    const Exchange group = AllReduce(first.group_ranks);
    const Exchange tp = AllReduce(first.tp_ranks);
    const auto add = [&](const Exchange& exchange, uint64_t& traffic) {
      price.exchange_seconds += exchange.seconds;
      traffic += exchange.bytes;
    };
    if (first.first_stage) add(group, price.traffic.embedding);
    for (size_t i = 0; i < first.per_layer.size(); ++i) {
      const LayerSpec& parts = spec_.layers[first.layers.begin + i];
      const bool repeated = i > 0 && parts == spec_.layers[first.layers.begin + i - 1];
      if (!repeated) layer_seconds_ = LayerSeconds(members, i);
      price.compute_seconds += layer_seconds_;
      add(tp, price.traffic.attention);
      const auto* moe = std::get_if<MoeFfn>(&parts.ffn);
      add(moe != nullptr ? group : tp, price.traffic.ffn);
      if (moe != nullptr) add(ExchangeWithExperts(first, *moe), price.traffic.ffn);
    }
    if (first.last_stage) {
      price.compute_seconds += HeadSeconds(members);
    } else {
      add(SendOn(first), price.traffic.pipeline);
    }
    return price;
  }

  double LayerSeconds(std::span<const RankLayout> members, size_t index) {
    double attention_seconds = 0;
    double ffn_seconds = 0;
    const LayerSpec& parts = spec_.layers[members.front().layers.begin + index];
    const auto* moe = std::get_if<MoeFfn>(&parts.ffn);
    const double busiest = moe == nullptr ? 0 : ExpectedBusiest(*moe, members, index);
    for (const RankLayout& rank : members) {
      const LayerWork work = WorkOf(rank, index, busiest);
      attention_seconds = std::max(attention_seconds, SecondsOf(work.attention, request_.hardware));
      ffn_seconds = std::max(ffn_seconds, SecondsOf(work.ffn, request_.hardware));
    }
    return attention_seconds + ffn_seconds;
  }

  struct LayerWork {
    Work attention;
    Work ffn;
  };

  // `busiest_experts`: how many experts the busiest rank reads.
  LayerWork WorkOf(const RankLayout& rank, size_t index, double busiest_experts) const {
    const double batch = GroupBatch();
    const RankLayout::Layer& layer = rank.per_layer[index];
    const auto global = static_cast<uint32_t>(rank.layers.begin + index);
    const LayerSpec& parts = spec_.layers[global];
    const auto* moe = std::get_if<MoeFfn>(&parts.ffn);
    LayerWork work;
    for (WeightBinding weight : LayerWeights(spec_, global, /*max_experts=*/1)) {
      const bool expert = weight.expert >= 0;
      if (expert) weight.expert = static_cast<int32_t>(layer.experts.begin);
      const auto part = PartOf(rank, spec_, weight);
      if (!part.has_value()) continue;
      const WeightSlice slice{.binding = weight, .rows = part->rows, .cols = part->cols};
      const auto bytes = static_cast<double>(PackedBytes(slice, request_.stored, request_.fp32));
      const auto elements = static_cast<double>(part->rows.size() * part->cols.size());
      Work& target = IsAttention(weight.role) ? work.attention : work.ffn;
      if (!expert) {
        target.bytes += bytes;
        target.flops += 2 * batch * elements;
        continue;
      }
      target.bytes += busiest_experts * bytes;
      const double share =
          static_cast<double>(layer.experts.size()) / static_cast<double>(moe->num_experts);
      target.flops += 2.0 * request_.workload.batch * moe->top_k * share * elements;
    }
    const AttentionHeads heads = AttentionHeadsOf(parts.attention, layer);
    double context = VisibleKeys(heads, request_.workload.context_tokens);
    const KvTokenBytes kv = KvTokenBytesOf(parts.attention, layer, request_.kv_type);
    auto kv_bytes = static_cast<double>(kv.total());
    if (heads.chosen > 0) {  // an indexer reads its keys of the whole context
      const auto index_dim = static_cast<double>(heads.index_dim);
      work.attention.bytes += batch * context * static_cast<double>(kv.second);
      work.attention.flops +=
          batch * context * 2 * static_cast<double>(heads.index_heads) * index_dim;
      kv_bytes -= static_cast<double>(kv.second);
      context = std::min(context, static_cast<double>(heads.chosen));
    }
    const auto products =
        static_cast<double>(layer.heads.size() * (heads.key_dim + heads.value_dim));
    work.attention.bytes += batch * context * kv_bytes;
    work.attention.flops += batch * context * 2 * products;
    // A state is read and written, and each element takes part in two products and sums.
    const auto state = static_cast<double>(StateFloatsPerSequence(parts.attention, layer));
    work.attention.bytes += batch * 2 * state * 4;
    work.attention.flops += batch * 4 * state;
    return work;
  }

  // Keys that a query sees with `context` before it; in a chunk as many as there are on average.
  static double VisibleKeys(const AttentionHeads& heads, double context) {
    if (heads.sliding_window > 0) {
      return std::min(context, static_cast<double>(heads.sliding_window));
    }
    const auto chunk = static_cast<double>(heads.chunk_size);
    return chunk > 0 && context > chunk ? (chunk + 1) / 2 : context;
  }

  static bool IsMoeBias(WeightRole role) {
    return role == WeightRole::kRouterBias || role == WeightRole::kRouterLogitBias ||
           role == WeightRole::kGateBias || role == WeightRole::kUpBias ||
           role == WeightRole::kDownBias;
  }

  static bool IsAttention(WeightRole role) {
    return role != WeightRole::kFfnNorm && role != WeightRole::kRouter &&
           role != WeightRole::kSharedGate && !IsFfnMatrix(role) && !IsMoeBias(role);
  }

  double ExpectedBusiest(const MoeFfn& moe, std::span<const RankLayout> members,
                         size_t index) const {
    const double experts = moe.num_experts;
    const double touched =
        experts * (1 - std::pow(1 - moe.top_k / experts, request_.workload.batch));
    const size_t slices = members.size() / request_.plan.ep;
    std::vector<uint64_t> sizes;
    for (size_t group = 0; group < request_.plan.ep; ++group) {
      sizes.push_back(members[group * slices].per_layer[index].experts.size());
    }
    const auto chosen = static_cast<uint64_t>(std::llround(touched));
    return BusiestExperts(sizes, std::min<uint64_t>(chosen, moe.num_experts));
  }

  double HeadSeconds(std::span<const RankLayout> members) const {
    const WeightBinding head{
        .role = WeightRole::kHead, .rows = spec_.vocab_size, .cols = spec_.hidden_size};
    double seconds = 0;
    for (const RankLayout& rank : members) {
      const WeightSlice slice{.binding = head, .rows = rank.vocab, .cols = {0, head.cols}};
      const Work work{
          .bytes = static_cast<double>(PackedBytes(slice, request_.stored, request_.fp32)),
          .flops = 2.0 * GroupBatch() * static_cast<double>(rank.vocab.size()) * spec_.hidden_size};
      seconds = std::max(seconds, SecondsOf(work, request_.hardware));
    }
    return seconds;
  }

  const Link& LinkBetween(uint32_t first_rank, uint32_t last_rank) const {
    const uint32_t per_node = request_.hardware.devices_per_node;
    return first_rank / per_node == last_rank / per_node ? request_.hardware.device_link
                                                         : request_.hardware.network;
  }

  // `ranks` are consecutive.
  Exchange AllReduce(const std::vector<uint32_t>& ranks) const {
    if (ranks.size() < 2) return {};
    const auto n = static_cast<double>(ranks.size());
    const uint64_t token_bytes = spec_.hidden_size * kActivationBytes;
    const double sent = 2 * (n - 1) / n * static_cast<double>(token_bytes);
    const Link& link = LinkBetween(ranks.front(), ranks.back());
    return {.seconds = link.latency_seconds + GroupBatch() * sent / link.bytes_per_second,
            .bytes = static_cast<uint64_t>(std::llround(sent))};
  }

  // Sequences of one data-parallel group.
  uint32_t GroupBatch() const {
    return (request_.workload.batch + request_.plan.dp - 1) / request_.plan.dp;
  }

  // Parts of the experts that a token has some of its choices in, on the average.
  double ExpectedParts(const MoeFfn& moe) const {
    double parts = 0;
    for (uint32_t part = 0; part < request_.plan.ep; ++part) {
      const uint64_t here = ExpertsOfPart(moe.num_experts, request_.plan.ep, part).size();
      const uint64_t elsewhere = moe.num_experts - here;
      double none_here = elsewhere < moe.top_k ? 0 : 1;
      for (uint32_t i = 0; i < moe.top_k && none_here > 0; ++i) {
        none_here *= static_cast<double>(elsewhere - i) / static_cast<double>(moe.num_experts - i);
      }
      parts += 1 - none_here;
    }
    return parts;
  }

  // Whether the experts' first product rounds to bfloat16.
  bool SendsBFloat16(const MoeFfn& moe) const {
    return !request_.fp32 && !moe.router.weigh_input && request_.stored != DType::kF32 &&
           (InfoOf(request_.stored).block_elements == 1 || OnlyExperts(request_.stored));
  }

  // Each rank of a group has a part of its tokens.
  Exchange ExchangeWithExperts(const RankLayout& rank, const MoeFfn& moe) const {
    if (request_.plan.dp == 1) return {};
    const auto ranks = static_cast<double>(rank.stage_ranks.size());
    const double slices = ranks / request_.plan.ep;
    const double row = static_cast<double>(spec_.hidden_size) * (ranks - 1) / ranks;  // to others
    const double sent = ExpectedParts(moe) * slices * row * (SendsBFloat16(moe) ? 2 : 4);
    const double returned = moe.top_k * slices * row * 4;
    const double tokens = std::ceil(GroupBatch() / static_cast<double>(rank.group_ranks.size()));
    const Link& link = LinkBetween(rank.stage_ranks.front(), rank.stage_ranks.back());
    return {
        .seconds = 3 * link.latency_seconds + tokens * (sent + returned) / link.bytes_per_second,
        .bytes = static_cast<uint64_t>(std::llround(sent + returned))};
  }

  Exchange SendOn(const RankLayout& rank) const {
    const Link& link = LinkBetween(rank.rank, *rank.next_stage_rank);
    const uint64_t bytes = spec_.hidden_size * kActivationBytes;
    return {.seconds = link.latency_seconds +
                       static_cast<double>(GroupBatch() * bytes) / link.bytes_per_second,
            .bytes = bytes};
  }

  const PriceRequest& request_;
  const ModelSpec& spec_;
  double layer_seconds_ = 0;  // of the layer before
};

// Natural logarithms of binomial coefficients up to n = `limit`.
class LogBinomials {
 public:
  explicit LogBinomials(uint64_t limit) : log_factorial_(limit + 1, 0.0) {
    for (uint64_t n = 2; n <= limit; ++n) {
      log_factorial_[n] = log_factorial_[n - 1] + std::log(static_cast<double>(n));
    }
  }
  double operator()(uint64_t n, uint64_t k) const {
    return log_factorial_[n] - log_factorial_[k] - log_factorial_[n - k];
  }

 private:
  std::vector<double> log_factorial_;
};

// Probability that no group gets more than `limit` of `chosen` draws without replacement: group by
// group, given how many draws are left for it and those after it.
double NoneAbove(std::span<const uint64_t> sizes, uint64_t chosen, uint64_t limit,
                 const LogBinomials& binomial) {
  uint64_t left = 0;  // experts of this group and those after it
  for (const uint64_t size : sizes) left += size;
  std::vector<double> probability(chosen + 1, 0.0);  // index = draws left
  probability[chosen] = 1;
  for (const uint64_t size : sizes) {
    std::vector<double> next(chosen + 1, 0.0);
    for (uint64_t draws = 0; draws <= std::min(chosen, left); ++draws) {
      if (probability[draws] == 0) continue;
      const uint64_t least = draws > left - size ? draws - (left - size) : 0;
      const uint64_t most = std::min({size, draws, limit});
      for (uint64_t here = least; here <= most; ++here) {
        next[draws - here] += probability[draws] *
                              std::exp(binomial(size, here) + binomial(left - size, draws - here) -
                                       binomial(left, draws));
      }
    }
    probability = std::move(next);
    left -= size;
  }
  return probability[0];
}

}  // namespace

double BusiestExperts(std::span<const uint64_t> sizes, uint64_t chosen) {
  if (chosen == 0) return 0;
  if (sizes.size() == 1) return static_cast<double>(chosen);
  uint64_t total = 0;
  uint64_t largest = 0;
  for (const uint64_t size : sizes) {
    total += size;
    largest = std::max(largest, size);
  }
  const LogBinomials binomial(total);
  // The sum over t of P(busiest > t). Some group has at least the average.
  const uint64_t average = (chosen + sizes.size() - 1) / sizes.size();
  auto expected = static_cast<double>(average);
  for (uint64_t limit = average; limit < std::min(largest, chosen); ++limit) {
    const double above = 1 - NoneAbove(sizes, chosen, limit, binomial);
    if (above < 1e-9) break;
    expected += above;
  }
  return expected;
}

Hardware H200Hardware() {
  return {.memory_bytes_per_second = 4.8e12,
          .flops = 990e12,
          .device_link = {.bytes_per_second = 450e9, .latency_seconds = 10e-6},
          .network = {.bytes_per_second = 50e9, .latency_seconds = 25e-6},
          .devices_per_node = 8};
}

Price PricePlan(const PriceRequest& request) { return Pricer(request).Run(); }

}  // namespace essor::model
