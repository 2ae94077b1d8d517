#include "worker/engine/kv_memory.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_stream.h"

namespace essor::worker {
namespace {

// A layer of each kind: all positions, the last 8 of them, and states.
model::ModelSpec ThreeKinds() {
  model::ModelSpec spec{.family = "test", .hidden_size = 32, .vocab_size = 64};
  spec.max_context_tokens = 256;
  model::GroupedQueryAttention attention{.num_heads = 2, .num_kv_heads = 1, .head_dim = 16};
  const model::DenseFfn ffn{.intermediate_size = 32};
  spec.layers.push_back({.attention = attention, .ffn = ffn});
  attention.sliding_window = 8;
  spec.layers.push_back({.attention = attention, .ffn = ffn});
  spec.layers.push_back(
      {.attention =
           model::LightningAttention{.num_heads = 2, .head_dim = 16, .slopes = {0.5, 0.25}},
       .ffn = ffn});
  return spec;
}

class KvMemoryTest : public ::testing::Test {
 protected:
  KvMemoryTest()
      : spec_(ThreeKinds()),
        layout_(model::LayoutOf({}, spec_, 0, 1)),
        shape_({.spec = &spec_,
                .layout = &layout_,
                .limits = {.block_tokens = 4, .max_sequences = 3, .max_context_tokens = 256},
                .capacity = {.num_blocks = 5, .num_window_blocks = 4, .num_snapshots = 2}}),
        stream_(kernels::CpuStream::Create({})) {}

  // What a layer with one array for each kind would keep.
  static PieceArray Array(std::byte* data, uint64_t bytes, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      std::memset(data + i * bytes, static_cast<int>(i + 1), bytes);
    }
    return {.data = data, .bytes = bytes};
  }
  // The number that each of `count` pieces is filled with; 0 where it is not one.
  static std::vector<int> Contents(const PieceArray& array, uint32_t count) {
    std::vector<int> contents;
    for (uint32_t i = 0; i < count; ++i) {
      const std::byte* first = array.data + i * array.bytes;
      const bool even = std::all_of(first, first + array.bytes,
                                    [first](std::byte value) { return value == *first; });
      contents.push_back(even ? static_cast<int>(*first) : 0);
    }
    return contents;
  }

  model::ModelSpec spec_;
  model::RankLayout layout_;
  KvMemory::Shape shape_;
  std::unique_ptr<kernels::CpuStream> stream_;
};

TEST_F(KvMemoryTest, LayersHaveBlocksOfTheirKind) {
  const auto memory = KvMemory::Create(shape_);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(memory->Cache(0).num_blocks, 5u);
  EXPECT_FALSE(memory->Cache(0).window);
  EXPECT_EQ(memory->Cache(1).num_blocks, 4u);
  EXPECT_TRUE(memory->Cache(1).window);
  EXPECT_EQ(memory->States(0), nullptr);
  EXPECT_NE(memory->States(2), nullptr);
  EXPECT_EQ(memory->state_slots(), 5u);
  // Keys and values of a token are 32 values of 16 bits; two heads have states of 16 x 16 floats.
  EXPECT_EQ(KvMemory::Bytes(shape_), (5u + 4u) * 4 * 32 * 2 + 5 * 2 * 16 * 16 * 4);
}

// What is allocated is what was planned, but for the ends of cache lines.
TEST_F(KvMemoryTest, TakesWhatIsPlanned) {
  const auto plan = model::PlanMemory({.spec = &spec_,
                                       .layout = &layout_,
                                       .limits = shape_.limits,
                                       .memory_bytes = uint64_t{1} << 32});
  ASSERT_TRUE(plan.ok()) << plan.status();
  shape_.capacity = plan->capacity;
  EXPECT_GT(plan->snapshot_bytes, 0u);
  EXPECT_EQ(KvMemory::Bytes(shape_), plan->kv_bytes + plan->state_bytes + plan->snapshot_bytes);
}

TEST_F(KvMemoryTest, CopiesBlocksOfOneKindInAllItsArrays) {
  auto memory = KvMemory::Create(shape_);
  ASSERT_TRUE(memory.ok()) << memory.status();
  const uint64_t bytes = 4 * 16 * 2;
  const PieceArray keys = Array(memory->Cache(0).data, bytes, 5);
  const PieceArray values = Array(memory->Cache(0).data + 5 * bytes, bytes, 5);
  const PieceArray windowed = Array(memory->Cache(1).data, bytes, 4);
  memory->Keep(0, {.of_block = {keys, values}, .of_sequence = {}});
  memory->Keep(1, {.of_block = {windowed}, .of_sequence = {}});
  memory->CopyBlock(4, 0, /*window=*/false, *stream_);
  EXPECT_THAT(Contents(keys, 5), ::testing::ElementsAre(5, 2, 3, 4, 5));
  EXPECT_THAT(Contents(values, 5), ::testing::ElementsAre(5, 2, 3, 4, 5));
  EXPECT_THAT(Contents(windowed, 4), ::testing::ElementsAre(1, 2, 3, 4));
  memory->CopyBlock(1, 3, /*window=*/true, *stream_);
  EXPECT_THAT(Contents(windowed, 4), ::testing::ElementsAre(1, 2, 3, 2));
  EXPECT_THAT(Contents(keys, 5), ::testing::ElementsAre(5, 2, 3, 4, 5));
}

TEST_F(KvMemoryTest, SnapshotsStandBehindTheSlots) {
  auto memory = KvMemory::Create(shape_);
  ASSERT_TRUE(memory.ok()) << memory.status();
  const PieceArray states =
      Array(reinterpret_cast<std::byte*>(memory->States(2)), 2 * 16 * 16 * 4, 5);
  memory->Keep(2, {.of_block = {}, .of_sequence = {states}});
  memory->SaveStates(/*slot=*/2, /*snapshot=*/1, *stream_);
  EXPECT_THAT(Contents(states, 5), ::testing::ElementsAre(1, 2, 3, 4, 3));
  memory->RestoreStates(/*snapshot=*/0, /*slot=*/1, *stream_);
  EXPECT_THAT(Contents(states, 5), ::testing::ElementsAre(1, 4, 3, 4, 3));
}

}  // namespace
}  // namespace essor::worker
