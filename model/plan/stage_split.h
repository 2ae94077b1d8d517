// Dividing layers over pipeline stages.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace essor::model {

// Weights of a row of layers, in any one unit.
struct StageCosts {
  std::span<const uint64_t> layers;
  uint64_t first_stage = 0;  // more on the first stage: the embedding
  uint64_t last_stage = 0;   // more on the last stage: final norm and head
};

// First layer of each of `num_stages` stages, then the number of layers: num_stages + 1 ascending
// numbers, no stage empty. Of all such divisions one whose heaviest stage is lightest; of those,
// one with the smallest sum of squared layer counts. Needs 1 <= num_stages <= layers.size().
std::vector<uint32_t> SplitStages(const StageCosts& costs, uint32_t num_stages);

}  // namespace essor::model
