#include "coordinator/core/kv_cache.h"

#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

std::vector<TokenId> Tokens(uint32_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class KvCacheTest : public testing::Test {
 protected:
  void Make(const model::KvKinds& kinds, const model::KvCapacity& capacity) {
    cache_.emplace(KvCache::Options{.kinds = kinds, .block_tokens = 4}, capacity);
  }
  std::optional<KvCache::Found> Start(const std::vector<TokenId>& tokens, KvSequence* sequence,
                                      uint32_t reserve_tokens = 0) {
    return cache_->Start(
        {.tokens = tokens,
         .salt = "",
         .reserve_tokens = std::max<uint32_t>(reserve_tokens, static_cast<uint32_t>(tokens.size())),
         .step = step_},
        sequence);
  }
  // Gives places to all of `tokens` and publishes them.
  void Fill(const std::vector<TokenId>& tokens, KvSequence* sequence) {
    std::vector<BlockId> blocks;
    cache_->ReleaseBehind(sequence);
    cache_->Extend(sequence, static_cast<uint32_t>(tokens.size()) - sequence->num_tokens, &blocks,
                   &blocks);
    cache_->Publish(sequence, tokens);
  }
  // Starts, fills and ends a sequence; what it found.
  uint32_t Use(const std::vector<TokenId>& tokens) {
    KvSequence sequence;
    const auto found = Start(tokens, &sequence);
    if (!found.has_value()) return UINT32_MAX;
    Fill(tokens, &sequence);
    cache_->End(&sequence);
    return found->context_tokens;
  }

  std::optional<KvCache> cache_;
  StepId step_{1};
};

TEST_F(KvCacheTest, ReservationsAreExact) {
  Make({.full = true}, {.num_blocks = 4});
  KvSequence a;
  KvSequence b;
  ASSERT_TRUE(Start(Tokens(5), &a, 12).has_value());  // 3 blocks
  EXPECT_FALSE(Start(Tokens(5, 100), &b).has_value());
  ASSERT_TRUE(Start(Tokens(4, 100), &b).has_value());
  EXPECT_EQ(cache_->RoomFor(a, 100), 12u);
  EXPECT_EQ(cache_->RoomFor(b, 100), 4u);
  cache_->End(&a);
  EXPECT_EQ(cache_->RoomFor(b, 100), 16u);
  cache_->End(&b);
  EXPECT_EQ(cache_->num_reserved(), 0u);
}

// The last token is always computed, so a whole prompt is never a hit.
TEST_F(KvCacheTest, HitsAreWholeBlocksBeforeTheLastToken) {
  Make({.full = true}, {.num_blocks = 16});
  EXPECT_EQ(Use(Tokens(8)), 0u);
  EXPECT_EQ(Use(Tokens(8)), 4u);
  EXPECT_EQ(Use(Tokens(9)), 8u);
  std::vector<TokenId> other = Tokens(9);
  other[2] = 77;  // a token in the first block
  EXPECT_EQ(Use(other), 0u);
  EXPECT_EQ(cache_->num_used(), 0u);
  EXPECT_EQ(cache_->num_cached(), 4u);
}

// What was dropped first goes first, and a block never before those behind it.
TEST_F(KvCacheTest, EvictsTheLeastRecentlyUsedLeaves) {
  Make({.full = true}, {.num_blocks = 6});
  Use(Tokens(12));                  // 3 blocks
  Use(Tokens(12, 100));             // 3 more
  EXPECT_EQ(Use(Tokens(13)), 12u);  // touches the first, evicts a leaf
  EXPECT_EQ(cache_->CachedTokens({.tokens = Tokens(13, 100), .salt = ""}), 8u);
  EXPECT_EQ(cache_->CachedTokens({.tokens = Tokens(13), .salt = ""}), 12u);
}

// Two that compute the same at once: one copy stays cached, and no block is lost.
TEST_F(KvCacheTest, ABlockComputedTwiceIsKeptOnce) {
  Make({.full = true}, {.num_blocks = 8});
  KvSequence a;
  KvSequence b;
  ASSERT_TRUE(Start(Tokens(8), &a).has_value());
  ASSERT_TRUE(Start(Tokens(8), &b).has_value());
  Fill(Tokens(8), &a);
  Fill(Tokens(8), &b);
  EXPECT_NE(a.blocks, b.blocks);
  EXPECT_EQ(a.path, b.path);
  cache_->End(&a);
  EXPECT_EQ(cache_->num_used(), 4u);
  cache_->End(&b);
  EXPECT_EQ(cache_->num_used(), 0u);
  EXPECT_EQ(cache_->num_cached(), 2u);
}

TEST_F(KvCacheTest, AForkSharesBlocksAndCopiesTheLast) {
  Make({.full = true}, {.num_blocks = 8});
  const std::vector<TokenId> prompt = Tokens(11);
  KvSequence first;
  ASSERT_TRUE(Start(prompt, &first).has_value());
  Fill(prompt, &first);
  KvSequence second;
  const auto found = cache_->Fork(
      {.tokens = prompt, .salt = "", .reserve_tokens = 11, .step = step_}, first, &second);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->context_tokens, 10u);
  ASSERT_EQ(found->copies.size(), 1u);
  EXPECT_EQ(found->copies[0].from, first.blocks[2]);
  EXPECT_EQ(found->copies[0].to, second.blocks[2]);
  EXPECT_EQ(first.blocks[1], second.blocks[1]);
  EXPECT_NE(first.blocks[2], second.blocks[2]);
  EXPECT_EQ(cache_->num_used(), 4u);
  cache_->End(&first);
  cache_->End(&second);
  EXPECT_EQ(cache_->num_used(), 0u);
}

// Blocks behind the window come back while the sequence runs; a hit needs those in sight.
TEST_F(KvCacheTest, WindowBlocksAreReleasedBehind) {
  Make({.full = false, .window_tokens = 6}, {.num_window_blocks = 6});
  std::vector<TokenId> tokens = Tokens(4);
  KvSequence sequence;
  ASSERT_TRUE(Start(tokens, &sequence).has_value());
  for (uint32_t length = 4; length <= 40; length += 4) {
    tokens = Tokens(length);
    Fill(tokens, &sequence);
    EXPECT_LE(sequence.window_blocks.size(), 3u);
  }
  EXPECT_EQ(sequence.first_window_block, 7u);  // position 36 reads from 31 on
  cache_->End(&sequence);
  EXPECT_EQ(cache_->num_window_blocks_used(), 0u);
  KvSequence again;
  const auto found = Start(Tokens(41), &again);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->context_tokens, 40u);
  EXPECT_EQ(again.first_window_block, 8u);
  EXPECT_EQ(again.window_blocks.size(), 2u);
  cache_->End(&again);
  KvSequence short_one;  // its blocks are gone
  ASSERT_TRUE(Start(Tokens(10), &short_one).has_value());
  EXPECT_EQ(short_one.num_tokens, 0u);
}

// States are restored only where they were saved, by an earlier step.
TEST_F(KvCacheTest, StatesAreRestoredFromSnapshots) {
  Make({.full = true, .states = true}, {.num_blocks = 16, .num_snapshots = 1});
  KvSequence a;
  ASSERT_TRUE(Start(Tokens(12), &a).has_value());
  Fill(Tokens(8), &a);
  EXPECT_EQ(cache_->PlaceSnapshot(&a, step_), 0u);
  EXPECT_EQ(cache_->PlaceSnapshot(&a, step_), std::nullopt);  // it is there already
  Fill(Tokens(12), &a);
  KvSequence b;
  ASSERT_TRUE(Start(Tokens(14), &b).has_value());
  EXPECT_EQ(b.num_tokens, 0u) << "the snapshot is made in this very step";
  cache_->End(&b);
  step_ = StepId(2);
  const auto found = Start(Tokens(14), &b);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->context_tokens, 8u);
  EXPECT_EQ(found->snapshot, 0u);
  EXPECT_EQ(found->branch_tokens, 12u);  // known so far, worth a snapshot
  Fill(Tokens(12), &b);
  EXPECT_EQ(cache_->PlaceSnapshot(&b, step_), 0u);  // the only place moves
  cache_->End(&a);
  cache_->End(&b);
  step_ = StepId(3);
  EXPECT_EQ(cache_->CachedTokens({.tokens = Tokens(10), .salt = "", .step = step_}), 0u);
  EXPECT_EQ(cache_->CachedTokens({.tokens = Tokens(14), .salt = "", .step = step_}), 12u);
}

TEST_F(KvCacheTest, WhatIsHiddenIsNotFound) {
  Make({.full = true}, {.num_blocks = 16});
  KvSequence sequence;
  ASSERT_TRUE(Start(Tokens(8), &sequence).has_value());
  Fill(Tokens(8), &sequence);
  cache_->Hide(sequence);
  cache_->End(&sequence);
  EXPECT_EQ(Use(Tokens(9)), 0u);
  EXPECT_EQ(Use(Tokens(9)), 8u);
  EXPECT_EQ(cache_->num_used(), 0u);
}

// Salts that were used once leave nothing behind.
TEST_F(KvCacheTest, RootsDoNotPileUp) {
  Make({.full = true}, {.num_blocks = 4});
  for (int i = 0; i < 1000; ++i) {
    KvSequence sequence;
    ASSERT_TRUE(cache_
                    ->Start({.tokens = Tokens(5),
                             .salt = std::to_string(i),
                             .reserve_tokens = 5,
                             .step = step_},
                            &sequence)
                    .has_value());
    Fill(Tokens(5), &sequence);
    cache_->End(&sequence);
  }
  EXPECT_LE(cache_->num_nodes(), 8u);
}

}  // namespace
}  // namespace essor::coordinator
