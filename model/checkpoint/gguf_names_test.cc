#include "model/checkpoint/gguf_names.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

struct Pair {
  std::string model_type;
  std::string hf;
  std::string gguf;
  std::optional<uint32_t> expert;
  bool permuted;
};

const std::vector<Pair>& Pairs() {
  static const auto* const pairs = new std::vector<Pair>{
      {"llama", "model.embed_tokens.weight", "token_embd.weight", {}, false},
      {"llama", "model.norm.weight", "output_norm.weight", {}, false},
      {"llama", "lm_head.weight", "output.weight", {}, false},
      {"llama", "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", {}, true},
      {"llama", "model.layers.31.self_attn.k_proj.bias", "blk.31.attn_k.bias", {}, true},
      {"llama", "model.layers.2.self_attn.v_proj.weight", "blk.2.attn_v.weight", {}, false},
      {"llama", "model.layers.2.mlp.down_proj.weight", "blk.2.ffn_down.weight", {}, false},
      {"mixtral", "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", {}, true},
      {"mixtral",
       "model.layers.1.block_sparse_moe.gate.weight",
       "blk.1.ffn_gate_inp.weight",
       {},
       false},
      {"mixtral", "model.layers.1.block_sparse_moe.experts.7.w1.weight",
       "blk.1.ffn_gate_exps.weight", 7, false},
      {"mixtral", "model.layers.1.block_sparse_moe.experts.7.w2.weight",
       "blk.1.ffn_down_exps.weight", 7, false},
      {"mixtral", "model.layers.1.block_sparse_moe.experts.0.w3.weight", "blk.1.ffn_up_exps.weight",
       0, false},
      {"qwen2", "model.layers.1.self_attn.q_proj.bias", "blk.1.attn_q.bias", {}, false},
      {"qwen3", "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", {}, false},
      {"qwen3", "model.layers.1.self_attn.q_norm.weight", "blk.1.attn_q_norm.weight", {}, false},
      {"qwen3_moe", "model.layers.1.mlp.gate.weight", "blk.1.ffn_gate_inp.weight", {}, false},
      {"qwen3_moe", "model.layers.1.mlp.experts.12.up_proj.weight", "blk.1.ffn_up_exps.weight", 12,
       false},
      {"deepseek_v3",
       "model.layers.1.self_attn.q_a_proj.weight",
       "blk.1.attn_q_a.weight",
       {},
       false},
      {"deepseek_v3", "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", {}, false},
      {"deepseek_v3",
       "model.layers.1.self_attn.kv_a_proj_with_mqa.weight",
       "blk.1.attn_kv_a_mqa.weight",
       {},
       false},
      {"deepseek_v3",
       "model.layers.1.self_attn.kv_b_proj.weight",
       "blk.1.attn_kv_b.weight",
       {},
       false},
      {"deepseek_v3",
       "model.layers.1.mlp.gate.e_score_correction_bias",
       "blk.1.exp_probs_b.bias",
       {},
       false},
      {"deepseek_v3",
       "model.layers.1.mlp.shared_experts.up_proj.weight",
       "blk.1.ffn_up_shexp.weight",
       {},
       false},
      {"deepseek_v3", "model.layers.1.mlp.experts.3.down_proj.weight", "blk.1.ffn_down_exps.weight",
       3, false},
      {"deepseek_v32",
       "model.layers.1.self_attn.indexer.k_norm.bias",
       "blk.1.indexer.k_norm.bias",
       {},
       false},
      {"deepseek_v32",
       "model.layers.1.self_attn.indexer.wq_b.weight",
       "blk.1.indexer.attn_q_b.weight",
       {},
       false},
      {"ernie4_5", "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", {}, false},
      {"ernie4_5_moe",
       "model.layers.1.mlp.moe_statics.e_score_correction_bias",
       "blk.1.exp_probs_b.bias",
       {},
       false},
      {"glm4", "model.layers.1.mlp.gate_up_proj.weight", "blk.1.ffn_up.weight", {}, false},
      {"glm4",
       "model.layers.1.post_self_attn_layernorm.weight",
       "blk.1.post_attention_norm.weight",
       {},
       false},
      {"glm4",
       "model.layers.1.post_attention_layernorm.weight",
       "blk.1.ffn_norm.weight",
       {},
       false},
      {"glm4", "model.layers.1.post_mlp_layernorm.weight", "blk.1.post_ffw_norm.weight", {}, false},
      {"glm4_moe",
       "model.layers.1.post_attention_layernorm.weight",
       "blk.1.post_attention_norm.weight",
       {},
       false},
      {"llama4_text",
       "model.layers.1.feed_forward.router.weight",
       "blk.1.ffn_gate_inp.weight",
       {},
       false},
      {"llama4_text", "model.layers.1.feed_forward.experts.2.gate_proj.weight",
       "blk.1.ffn_gate_exps.weight", 2, false},
      {"llama4_text",
       "model.layers.1.feed_forward.shared_expert.down_proj.weight",
       "blk.1.ffn_down_shexp.weight",
       {},
       false},
      {"llama4_text",
       "model.layers.0.feed_forward.up_proj.weight",
       "blk.0.ffn_up.weight",
       {},
       false},
      {"minimax_m2",
       "model.layers.1.block_sparse_moe.e_score_correction_bias",
       "blk.1.exp_probs_b.bias",
       {},
       false},
      {"minimax_m2", "model.layers.1.block_sparse_moe.experts.5.w3.weight",
       "blk.1.ffn_up_exps.weight", 5, false},
  };
  return *pairs;
}

TEST(GgufNamesTest, NamesTranslateBothWays) {
  for (const Pair& pair : Pairs()) {
    const auto tensor = GgufTensorName(pair.model_type, pair.hf);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->name, pair.gguf);
    EXPECT_EQ(tensor->expert, pair.expert) << pair.hf;
    EXPECT_EQ(tensor->rope_permuted, pair.permuted) << pair.hf;
    EXPECT_EQ(IsStackedExperts(tensor->name), pair.expert.has_value());
    EXPECT_EQ(HfTensorName(pair.model_type, pair.gguf, pair.expert).value(), pair.hf);
  }
}

TEST(GgufNamesTest, UnknownNamesAreRefused) {
  for (const char* const name :
       {"model.layers.x.mlp.up_proj.weight", "model.layers.1.mlp.up_proj",
        "model.layers.1.block_sparse_moe.gate.weight", "model.layers.-1.mlp.up_proj.weight",
        "model.layers.99999999999.mlp.up_proj.weight", "weight", ""}) {
    const absl::Status status = GgufTensorName("llama", name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("has no counterpart in the family llama"));
  }
  const absl::Status family = GgufTensorName("gpt2", "lm_head.weight").status();
  EXPECT_THAT(std::string(family.message()), HasSubstr("model type gpt2 has no GGUF form"));
  EXPECT_FALSE(GgufTensorName("qwen3_moe", "model.layers.1.mlp.gate.e_score_correction_bias").ok());
  EXPECT_FALSE(HfTensorName("qwen3_moe", "blk.1.exp_probs_b.bias").ok());
  const absl::Status which = HfTensorName("mixtral", "blk.0.ffn_up_exps.weight").status();
  EXPECT_THAT(std::string(which.message()), HasSubstr("holds all experts: say which"));
}

// Inside a head of 8 rows the file has 0 4 1 5 2 6 3 7.
TEST(GgufNamesTest, RopeRowsInterleaveTheHalvesOfEachHead) {
  const std::vector<uint64_t> expected = {0, 2, 4, 6, 1, 3, 5, 7};
  for (uint64_t row = 0; row < 24; ++row) {
    EXPECT_EQ(GgufRopeRow(row, 8), row / 8 * 8 + expected[row % 8]);
  }
}

}  // namespace
}  // namespace essor::model
