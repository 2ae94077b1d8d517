// An engine takes no more than the plan says, in any model and plan. Compared before the plan adds
// kernels' workspaces and slack, in which a forgotten piece would not be seen.
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "model/plan/memory_plan.h"
#include "model/plan/parallel_plan.h"
#include "model/plan/random_models.h"
#include "worker/device/device_buffer.h"
#include "worker/engine/engine.h"

namespace essor::worker {
namespace {

std::vector<model::Range> VocabSlices(const std::vector<model::RankLayout>& layouts,
                                      const model::RankLayout& layout) {
  std::vector<model::Range> slices;
  for (const uint32_t rank : layout.group_ranks) slices.push_back(layouts[rank].vocab);
  return slices;
}

// Calls `check` with every rank of some hundred instances, whose sizes are such that any piece is
// larger than what is planned for small ones.
template <typename Check>
void ForEachRank(uint64_t seed, const Check& check) {
  model::RandomModels random(seed);
  int checked = 0;
  for (int i = 0; i < 400; ++i) {
    model::ModelSpec spec = random.Spec();
    spec.vocab_size *= 500;
    const model::ParallelPlan plan = random.Plan();
    if (!model::ValidatePlan(plan, spec).ok()) continue;
    const model::ServingLimits limits{.max_step_tokens = random.Between(1, 20000),
                                      .max_sequences = random.Between(1, 40),
                                      .max_context_tokens = random.Between(1, 5000)};
    const std::vector<model::RankLayout> layouts = model::LayoutsOf(plan, spec, 1);
    for (const model::RankLayout& layout : layouts) {
      SCOPED_TRACE(absl::StrCat(plan.ToString(), ", rank ", layout.rank, " of model ", i));
      check(spec, layout, limits, VocabSlices(layouts, layout));
      ++checked;
    }
  }
  EXPECT_GT(checked, 500);
}

TEST(PlannedMemoryTest, HoldsTheWorkspaceOfEveryRank) {
  constexpr uint64_t kAlignmentOfPieces = 64 * 64;
  ForEachRank(7, [](const model::ModelSpec& spec, const model::RankLayout& layout,
                    const model::ServingLimits& limits, const std::vector<model::Range>& slices) {
    EXPECT_LE(Engine::WorkspaceBytes(spec, layout, limits, slices),
              model::StepBufferBytes(layout, spec, limits) + kAlignmentOfPieces);
  });
}

TEST(PlannedMemoryTest, HoldsBlocksStatesAndSnapshotsOfEveryRank) {
  ForEachRank(8, [](const model::ModelSpec& spec, const model::RankLayout& layout,
                    const model::ServingLimits& limits, const std::vector<model::Range>&) {
    model::MemoryRequest request{.spec = &spec, .layout = &layout, .limits = limits};
    request.memory_bytes = model::LeastBytes(request) + (uint64_t{3} << 20);
    const auto plan = model::PlanMemory(request);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const uint64_t alignment = 2 * 64 * layout.layers.size();
    EXPECT_LE(Engine::KvBytes(spec, layout, limits, plan->capacity),
              plan->kv_bytes + plan->state_bytes + plan->snapshot_bytes + alignment);
    EXPECT_LE(plan->total_bytes(), request.memory_bytes);
  });
}

}  // namespace
}  // namespace essor::worker
