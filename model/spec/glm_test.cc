#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/spec_test_support.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;

WeightBinding Find(const ModelSpec& spec, WeightRole role, int32_t layer, int32_t expert = -1) {
  for (const WeightBinding& binding : BindingsOf(spec, [](const auto&) { return false; })) {
    if (binding.role == role && binding.layer == layer && binding.expert == expert) return binding;
  }
  ADD_FAILURE() << "no binding for role " << static_cast<int>(role);
  return {};
}

TEST(GlmTest, PublishedModels) {
  const ModelSpec spec = LoadSpec("configs/glm-4-9b");
  ASSERT_EQ(spec.layers.size(), 40u);
  EXPECT_EQ(spec.norm_eps, 1.5625e-7);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(151329, 151336, 151338));
  const GroupedQueryAttention& attention = AttentionOf(spec, 39);
  EXPECT_EQ(attention.num_heads, 32u);
  EXPECT_EQ(attention.num_kv_heads, 2u);
  EXPECT_TRUE(attention.qkv_bias && !attention.output_bias);
  EXPECT_EQ(attention.rope, (RopeSpec{.rotary_dim = 64, .interleaved = true}));
  EXPECT_EQ(std::get<DenseFfn>(spec.layers[0].ffn).intermediate_size, 13696u);
  EXPECT_FALSE(spec.layers[0].post_norms);
  const ModelSpec with_post_norms = LoadSpec("configs/glm-4-32b-0414");
  EXPECT_TRUE(with_post_norms.layers[60].post_norms);
  EXPECT_FALSE(AttentionOf(with_post_norms, 60).qkv_bias);
  EXPECT_NEAR(static_cast<double>(spec.NumParameters()), 9.4e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(with_post_norms.NumParameters()), 32.6e9, 0.1e9);
}

TEST(GlmTest, GateAndUpAreOneTensor) {
  const ModelSpec glm4 = LoadSpec("nano/glm4");
  const WeightBinding gate = Find(glm4, WeightRole::kGate, 1);
  const WeightBinding up = Find(glm4, WeightRole::kUp, 1);
  EXPECT_EQ(gate.tensor, "model.layers.1.mlp.gate_up_proj.weight");
  EXPECT_EQ(up.tensor, gate.tensor);
  EXPECT_EQ(gate.first_row, 0u);
  EXPECT_EQ(up.first_row, 40u);
  EXPECT_EQ(Find(glm4, WeightRole::kDown, 1).tensor, "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(Find(glm4, WeightRole::kAttentionPostNorm, 1).tensor,
            "model.layers.1.post_self_attn_layernorm.weight");
  EXPECT_EQ(Find(glm4, WeightRole::kFfnPostNorm, 1).tensor,
            "model.layers.1.post_mlp_layernorm.weight");
}

}  // namespace
}  // namespace essor::model
