// A sequence that goes on from what others left in the cache (blocks, copies of blocks, snapshots
// of states), or whose blocks behind the window went to others, has the bits of one that did it all
// itself.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/support/local_instance.h"

namespace essor::testing {
namespace {

constexpr uint32_t kBlockTokens = 8;
constexpr uint32_t kNumBlocks = 40;

struct Case {
  const char* family;
  const char* plan;
  KvType kv_type = KvType::kBFloat16;
};

std::unique_ptr<LocalInstance> Instance(const Case& test) {
  auto instance = LocalInstance::Create(
      {.model_path = absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", test.family),
       .plan = test.plan,
       .precision = worker::Precision::kBFloat16,
       .limits = {.block_tokens = kBlockTokens,
                  .max_step_tokens = 64,
                  .max_sequences = 4,
                  .max_context_tokens = 96},
       .kv_type = test.kv_type,
       .num_blocks = kNumBlocks,
       .num_snapshots = 3});
  EXPECT_TRUE(instance.ok()) << instance.status();
  return instance.ok() ? *std::move(instance) : nullptr;
}

std::vector<TokenId> SomeTokens(uint32_t count, uint32_t seed, uint32_t vocab_size) {
  std::vector<TokenId> tokens(count);
  uint32_t state = seed;
  for (TokenId& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = (state >> 8) % vocab_size;
  }
  return tokens;
}

std::vector<TokenId> Part(const std::vector<TokenId>& tokens, size_t first, size_t end) {
  return {tokens.begin() + static_cast<ptrdiff_t>(first),
          tokens.begin() + static_cast<ptrdiff_t>(std::min(end, tokens.size()))};
}

// A chunk of which all logits are wanted.
worker::StepInput::Sequence Chunk(uint32_t slot, std::vector<TokenId> tokens) {
  return {.slot = slot, .tokens = std::move(tokens), .sample = false, .return_logits = true};
}

std::vector<float> RowsFrom(const std::vector<float>& logits, size_t first) {
  return {logits.begin() + static_cast<ptrdiff_t>(first), logits.end()};
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The logits of slot `slot`; none when the step failed.
std::vector<float> LogitsOf(LocalInstance& instance, const worker::StepInput& step, uint32_t slot) {
  const auto output = instance.Run(step);
  EXPECT_TRUE(output.ok()) << output.status();
  if (!output.ok()) return {};
  for (const auto& scored : output->scored) {
    if (scored.slot == slot) return scored.logits;
  }
  return {};
}

std::string CaseName(const ::testing::TestParamInfo<Case>& test) {
  std::string name =
      absl::StrCat(test.param.family, "_", test.param.plan, "_", NameOf(test.param.kv_type));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

// One sequence computes a prefix and goes on; another goes on from the same prefix otherwise.
class SharedPrefixTest : public ::testing::TestWithParam<Case> {
 protected:
  SharedPrefixTest() : instance_(Instance(GetParam())) {}

  void SetUp() override {
    ASSERT_NE(instance_, nullptr);
    const uint32_t vocab = instance_->spec().vocab_size;
    first_ = SomeTokens(60, 1, vocab);
  }

  // Slot 0 computes `shared` tokens into blocks 0, 1, ..., saves its states and goes on to 50.
  void ComputeFirst(uint32_t shared) {
    worker::StepInput prefix;
    prefix.starts.push_back({.slot = 0, .sampling = {}});
    prefix.sequences.push_back(Chunk(0, Part(first_, 0, shared)));
    instance_->AddBlocks({0, 1, 2, 3, 4, 5, 6, 7}, &prefix.sequences[0]);
    if (instance_->kinds().states) prefix.sequences[0].save_snapshot = 2;
    ASSERT_TRUE(instance_->Run(prefix).ok());
    worker::StepInput rest;
    rest.sequences.push_back(Chunk(0, Part(first_, shared, 50)));
    ASSERT_TRUE(instance_->Run(rest).ok());
  }

  // How slot 1 goes on behind `shared` tokens: with the blocks of slot 0, the last of which it has
  // a copy of where it is not full.
  worker::StepInput StartSecond(uint32_t shared) {
    worker::StepInput step;
    const model::KvKinds& kinds = instance_->kinds();
    worker::StepInput::Start start{.slot = 1, .sampling = {}, .context_tokens = shared};
    std::vector<uint32_t> blocks;
    for (uint32_t block = 0; block * kBlockTokens < shared; ++block) blocks.push_back(block);
    if (shared % kBlockTokens != 0) {
      const worker::StepInput::Copy copy{.from = blocks.back(), .to = 20};
      blocks.back() = copy.to;
      if (kinds.full) step.copies.push_back(copy);
      if (kinds.window_tokens > 0) {
        step.copies.push_back({.from = copy.from, .to = copy.to, .window = true});
      }
      // The other group has a block of the same number.
      const bool groups = absl::StrContains(GetParam().plan, "dp=");
      if (groups) step.copies.push_back({.group = 1, .from = 30, .to = 20, .window = !kinds.full});
    }
    if (kinds.full) start.blocks = blocks;
    if (kinds.window_tokens > 0) {
      const uint32_t seen = shared + 1 - std::min(shared + 1, kinds.window_tokens);
      start.first_window_block = seen / kBlockTokens;
      start.window_blocks = {blocks.begin() + start.first_window_block, blocks.end()};
    }
    if (kinds.states) start.restore_snapshot = 2;
    step.starts.push_back(std::move(start));
    return step;
  }

  std::unique_ptr<LocalInstance> instance_;
  std::vector<TokenId> first_;
};

// Whole blocks are shared; of a block that both go on to write the second has a copy.
TEST_P(SharedPrefixTest, TheBitsAreThoseOfASequenceThatComputedItItself) {
  const size_t vocab = instance_->spec().vocab_size;
  for (const uint32_t shared : {24u, 20u}) {
    std::vector<TokenId> second = Part(first_, 0, shared);
    const auto tail = SomeTokens(30, 77, instance_->spec().vocab_size);
    second.insert(second.end(), tail.begin(), tail.end());
    const auto first_alone = instance_->Logits(first_, 16);
    const auto second_alone = instance_->Logits(second, 16);
    ASSERT_TRUE(first_alone.ok() && second_alone.ok());

    ComputeFirst(shared);
    worker::StepInput step = StartSecond(shared);
    std::vector<float> logits;
    for (size_t at = shared; at < second.size(); at += 7) {
      step.sequences.push_back(Chunk(1, Part(second, at, at + 7)));
      if (at == shared) instance_->AddBlocks({21, 22, 23, 24}, &step.sequences[0]);
      const auto part = LogitsOf(*instance_, step, 1);
      logits.insert(logits.end(), part.begin(), part.end());
      step = {};
    }
    EXPECT_TRUE(SameBits(logits, RowsFrom(*second_alone, shared * vocab)))
        << shared << " shared tokens";

    // And the first one goes on as if there had been no second.
    step.sequences.push_back(Chunk(0, Part(first_, 50, 60)));
    EXPECT_TRUE(SameBits(LogitsOf(*instance_, step, 0), RowsFrom(*first_alone, 50 * vocab)))
        << shared << " shared tokens";
    worker::StepInput release;
    release.release_slots = {0, 1};
    ASSERT_TRUE(instance_->Run(release).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, SharedPrefixTest,
    ::testing::Values(
        Case{"qwen3_moe", "tp=1"}, Case{"qwen3_moe", "pp=2,tp=2"}, Case{"deepseek_v3", "tp=2"},
        Case{"deepseek_v32", "tp=1"}, Case{"deepseek_v32", "pp=2"}, Case{"gpt_oss", "tp=1"},
        Case{"gpt_oss", "pp=2"}, Case{"llama4", "tp=2"}, Case{"llama4", "tp=1"},
        Case{"qwen3_next", "tp=1"}, Case{"qwen3_next", "tp=2"}, Case{"qwen3_next", "pp=2"},
        Case{"minimax_text_01", "tp=1"}, Case{"minimax_text_01", "pp=2,ep=2"},
        Case{"qwen3_moe", "tp=2", KvType::kInt8}, Case{"qwen3_moe", "tp=1", KvType::kFp8},
        Case{"deepseek_v32", "tp=2", KvType::kInt8}, Case{"deepseek_v3", "tp=1", KvType::kFp8},
        Case{"gpt_oss", "tp=2", KvType::kInt8}, Case{"qwen3_next", "tp=1", KvType::kInt8},
        Case{"qwen3_next", "pp=2,dp=2,ep=2"}, Case{"gpt_oss", "dp=2,ep=2", KvType::kInt8}),
    CaseName);

// Blocks of windows for sequences that give back those behind their window before every chunk. What
// was given back last is taken first, so that it is overwritten at once.
class WindowBlocks {
 public:
  explicit WindowBlocks(uint32_t num_blocks) {
    for (uint32_t block = num_blocks; block > 0; --block) free_.push_back(block - 1);
  }

  // What the chunk of `count` tokens at `context` needs; `held` are the sequence's blocks, by their
  // place in it.
  std::vector<uint32_t> Extend(uint32_t context, uint32_t count, uint32_t window,
                               std::vector<uint32_t>* held) {
    const uint32_t seen = context + 1 - std::min(context + 1, window);
    std::vector<uint32_t> taken;
    while (held->size() * kBlockTokens < context + count) {
      EXPECT_FALSE(free_.empty());
      if (free_.empty()) break;
      held->push_back(free_.back());
      taken.push_back(free_.back());
      free_.pop_back();
    }
    // For other sequences, from this step on: this one no longer looks at them.
    for (uint32_t block = 0; block < seen / kBlockTokens; ++block) {
      if ((*held)[block] == kGivenBack) continue;
      free_.push_back((*held)[block]);
      (*held)[block] = kGivenBack;
    }
    return taken;
  }

 private:
  static constexpr uint32_t kGivenBack = UINT32_MAX;
  std::vector<uint32_t> free_;
};

class WindowTest : public ::testing::TestWithParam<Case> {};

// Two long sequences side by side, in turn taking the blocks that the other one has left behind.
TEST_P(WindowTest, BlocksBehindTheWindowMayBeAnybodys) {
  const auto instance = Instance(GetParam());
  ASSERT_NE(instance, nullptr);
  const uint32_t window = instance->kinds().window_tokens;
  ASSERT_GT(window, 0u);
  const uint32_t vocab = instance->spec().vocab_size;
  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::vector<float>> alone;
  for (const uint32_t seed : {3u, 4u}) {
    tokens.push_back(SomeTokens(90, seed, vocab));
    auto logits = instance->Logits(tokens.back(), 64);
    ASSERT_TRUE(logits.ok()) << logits.status();
    alone.push_back(*std::move(logits));
  }

  for (const uint32_t chunk : {1u, 6u}) {
    WindowBlocks pool(7);  // of the 24 that both sequences fill
    std::vector<std::vector<uint32_t>> held(2);
    std::vector<std::vector<float>> together(2);
    for (uint32_t context = 0; context < 90; context += chunk) {
      for (uint32_t slot = 0; slot < 2; ++slot) {
        worker::StepInput step;
        if (context == 0) step.starts.push_back({.slot = slot, .sampling = {}});
        worker::StepInput::Sequence sequence =
            Chunk(slot, Part(tokens[slot], context, context + chunk));
        if (context == 0 && instance->kinds().full) {
          for (uint32_t block = 0; block < 12; ++block) {
            sequence.new_blocks.push_back(12 * slot + block);
          }
        }
        sequence.new_window_blocks = pool.Extend(
            context, static_cast<uint32_t>(sequence.tokens.size()), window, &held[slot]);
        step.sequences.push_back(std::move(sequence));
        const auto part = LogitsOf(*instance, step, slot);
        together[slot].insert(together[slot].end(), part.begin(), part.end());
      }
    }
    for (uint32_t slot = 0; slot < 2; ++slot) {
      EXPECT_TRUE(SameBits(together[slot], alone[slot])) << "slot " << slot << " chunk " << chunk;
    }
    worker::StepInput release;
    release.release_slots = {0, 1};
    ASSERT_TRUE(instance->Run(release).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, WindowTest,
                         ::testing::Values(Case{"gpt_oss", "tp=1"}, Case{"gpt_oss", "tp=2"},
                                           Case{"gpt_oss", "pp=2"}, Case{"llama4", "tp=1"},
                                           Case{"llama4", "pp=2"},
                                           Case{"gpt_oss", "tp=1", KvType::kInt8},
                                           Case{"llama4", "tp=2", KvType::kFp8}),
                         CaseName);

// A sequence that starts behind its window needs the window's blocks only, and one that goes on
// from a snapshot only the snapshot: asking for too little is refused, not computed.
TEST(KvReuseTest, StartsThatLackWhatTheyNeedAreRefused) {
  const auto windowed = Instance({"gpt_oss", "pp=2"});
  ASSERT_NE(windowed, nullptr);
  worker::StepInput step;
  step.starts.push_back({.slot = 0,
                         .sampling = {},
                         .context_tokens = 24,
                         .blocks = {0, 1, 2},
                         .first_window_block = 3});
  EXPECT_EQ(windowed->Run(step).status().code(), absl::StatusCode::kInvalidArgument);

  const auto linear = Instance({"qwen3_next", "tp=2"});
  ASSERT_NE(linear, nullptr);
  step.starts[0].first_window_block = 0;
  EXPECT_EQ(linear->Run(step).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace essor::testing
