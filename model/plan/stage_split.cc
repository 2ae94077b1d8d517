#include "model/plan/stage_split.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace essor::model {
namespace {

constexpr uint64_t kUnreachable = std::numeric_limits<uint64_t>::max();

// best[end] for a number of stages: the least figure with which those stages can hold layers
// [0, end); from[end]: where the last of them begins.
struct Row {
  std::vector<uint64_t> best;
  std::vector<uint32_t> from;
};

class Splitter {
 public:
  Splitter(const StageCosts& costs, uint32_t num_stages)
      : costs_(costs), num_stages_(num_stages), prefix_(costs.layers.size() + 1, 0) {
    for (size_t i = 0; i < costs.layers.size(); ++i) prefix_[i + 1] = prefix_[i] + costs.layers[i];
  }

  // Weight of the heaviest stage in the best division.
  uint64_t LightestMaximum() const {
    const auto add = [&](uint64_t before, uint32_t stage, uint32_t begin, uint32_t end) {
      return std::max(before, Cost(stage, begin, end));
    };
    return Rows(add).back().best.back();
  }

  // The most even division with no stage above `limit`.
  std::vector<uint32_t> MostEven(uint64_t limit) const {
    const auto add = [&](uint64_t before, uint32_t stage, uint32_t begin, uint32_t end) {
      if (Cost(stage, begin, end) > limit) return kUnreachable;
      return before + uint64_t{end - begin} * (end - begin);
    };
    const std::vector<Row> rows = Rows(add);
    std::vector<uint32_t> starts(num_stages_ + 1);
    starts[num_stages_] = static_cast<uint32_t>(costs_.layers.size());
    for (uint32_t stage = num_stages_; stage > 0; --stage) {
      starts[stage - 1] = rows[stage - 1].from[starts[stage]];
    }
    return starts;
  }

 private:
  uint64_t Cost(uint32_t stage, uint32_t begin, uint32_t end) const {
    uint64_t cost = prefix_[end] - prefix_[begin];
    if (stage == 0) cost += costs_.first_stage;
    if (stage + 1 == num_stages_) cost += costs_.last_stage;
    return cost;
  }

  // Dynamic programming over (stages used, layers placed); `add` extends a figure by one stage.
  template <typename Add>
  std::vector<Row> Rows(const Add& add) const {
    const auto num_layers = static_cast<uint32_t>(costs_.layers.size());
    std::vector<Row> rows(num_stages_, {std::vector<uint64_t>(num_layers + 1, kUnreachable),
                                        std::vector<uint32_t>(num_layers + 1, 0)});
    for (uint32_t end = 1; end <= num_layers; ++end) rows[0].best[end] = add(0, 0, 0, end);
    for (uint32_t stage = 1; stage < num_stages_; ++stage) {
      for (uint32_t end = stage + 1; end <= num_layers; ++end) {
        for (uint32_t begin = stage; begin < end; ++begin) {
          if (rows[stage - 1].best[begin] == kUnreachable) continue;
          const uint64_t figure = add(rows[stage - 1].best[begin], stage, begin, end);
          if (figure >= rows[stage].best[end]) continue;
          rows[stage].best[end] = figure;
          rows[stage].from[end] = begin;
        }
      }
    }
    return rows;
  }

  const StageCosts costs_;
  const uint32_t num_stages_;
  std::vector<uint64_t> prefix_;
};

}  // namespace

std::vector<uint32_t> SplitStages(const StageCosts& costs, uint32_t num_stages) {
  ESSOR_CHECK(num_stages >= 1 && num_stages <= costs.layers.size());
  const Splitter splitter(costs, num_stages);
  return splitter.MostEven(splitter.LightestMaximum());
}

}  // namespace essor::model
