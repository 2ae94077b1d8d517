#include <fstream>
#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/families.h"
#include "nlohmann/json.hpp"

namespace essor::model {
namespace {

using ::testing::ElementsAre;

nlohmann::json ReadConfig(const std::string& directory) {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/" + directory + "/config.json");
  EXPECT_TRUE(file.good()) << directory;
  return nlohmann::json::parse(file);
}

absl::StatusOr<ModelSpec> SpecOf(const nlohmann::json& config) {
  const auto view = ConfigView::Parse(config.dump(), "config.json");
  EXPECT_TRUE(view.ok()) << view.status();
  return SpecFromConfig(*view);
}

ModelSpec Load(const std::string& directory) {
  const auto spec = SpecOf(ReadConfig(directory));
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

const GroupedQueryAttention& AttentionOf(const ModelSpec& spec, size_t layer) {
  return std::get<GroupedQueryAttention>(spec.layers[layer].attention);
}

WeightBinding Find(const ModelSpec& spec, WeightRole role, int32_t layer, int32_t expert = -1) {
  for (const WeightBinding& binding : BindingsOf(spec, [](const auto&) { return false; })) {
    if (binding.role == role && binding.layer == layer && binding.expert == expert) return binding;
  }
  ADD_FAILURE() << "no binding for role " << static_cast<int>(role);
  return {};
}

TEST(GlmTest, PublishedModels) {
  const ModelSpec spec = Load("configs/glm-4-9b");
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
  const ModelSpec with_post_norms = Load("configs/glm-4-32b-0414");
  EXPECT_TRUE(with_post_norms.layers[60].post_norms);
  EXPECT_FALSE(AttentionOf(with_post_norms, 60).qkv_bias);
  EXPECT_NEAR(static_cast<double>(spec.NumParameters()), 9.4e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(with_post_norms.NumParameters()), 32.6e9, 0.1e9);
}

TEST(GlmTest, GateAndUpAreOneTensor) {
  const ModelSpec glm4 = Load("nano/glm4");
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
