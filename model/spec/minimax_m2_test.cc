#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/spec_test_support.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

WeightBinding Find(const ModelSpec& spec, WeightRole role, int32_t layer, int32_t expert = -1) {
  for (const WeightBinding& binding : BindingsOf(spec, [](const auto&) { return false; })) {
    if (binding.role == role && binding.layer == layer && binding.expert == expert) return binding;
  }
  ADD_FAILURE() << "no binding for role " << static_cast<int>(role);
  return {};
}

// 230B with 10B active.
TEST(MiniMaxM2Test, PublishedModel) {
  const ModelSpec spec = LoadSpec("configs/minimax-m2");
  ASSERT_EQ(spec.layers.size(), 62u);
  EXPECT_EQ(spec.hidden_size, 3072u);
  EXPECT_EQ(spec.norm_eps, 1e-6);
  EXPECT_EQ(spec.max_context_tokens, 196608u);
  EXPECT_EQ(spec.num_draft_layers, 3u);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(200020));
  const GroupedQueryAttention& attention = AttentionOf(spec, 61);
  EXPECT_EQ(attention.num_heads, 48u);
  EXPECT_EQ(attention.num_kv_heads, 8u);
  EXPECT_EQ(attention.head_dim, 128u);
  EXPECT_EQ(attention.qk_norm, QkNorm::kFullWidth);
  EXPECT_EQ(attention.rope, (RopeSpec{.theta = 5e6, .rotary_dim = 64}));
  EXPECT_EQ(std::get<MoeFfn>(spec.layers[0].ffn),
            (MoeFfn{.num_experts = 256,
                    .top_k = 8,
                    .intermediate_size = 1536,
                    .router = {.score = RouterSpec::Score::kSigmoid, .correction_bias = true}}));
  EXPECT_NEAR(static_cast<double>(spec.NumParameters()), 228.7e9, 0.1e9);
  EXPECT_NEAR(static_cast<double>(spec.NumActiveParameters()), 10e9, 0.5e9);
  EXPECT_TRUE(IsDraftTensor(spec, "model.layers.64.eh_proj.weight"));
  EXPECT_FALSE(IsDraftTensor(spec, "model.layers.65.eh_proj.weight"));
}

TEST(MiniMaxM2Test, RefusesWhatItsReleasesDoNotHave) {
  const struct {
    const char* key;
    nlohmann::json value;
    const char* message;
  } kCases[] = {
      {"attn_type_list", {1, 0, 1}, "attn_type_list: attention other than full"},
      {"qk_norm_type", "per_head", "qk_norm_type: \"per_head\" is not per_layer"},
      {"scoring_func", "softmax", "scoring_func: \"softmax\" is not sigmoid"},
      {"shared_intermediate_size", 8, "shared_intermediate_size: a shared expert"},
      {"rotary_dim", 17, "rotary_dim: 17 is outside 1 to 16"},
      {"rotary_dim", 7, "7 rotated dimensions of 16: must be even"},
      {"num_mtp_modules", -1, "num_mtp_modules: -1 is outside"},
  };
  for (const auto& test : kCases) {
    nlohmann::json config = ReadConfig("nano/minimax_m2");
    config[test.key] = test.value;
    EXPECT_THAT(std::string(SpecOf(config).status().message()), HasSubstr(test.message));
  }
  nlohmann::json config = ReadConfig("nano/minimax_m2");
  config["use_qk_norm"] = false;
  config["use_routing_bias"] = false;
  config.erase("rotary_dim");
  const auto plain = SpecOf(config);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(AttentionOf(*plain, 0).qk_norm, QkNorm::kNone);
  EXPECT_EQ(AttentionOf(*plain, 0).rope.rotary_dim, 16u);
  EXPECT_FALSE(std::get<MoeFfn>(plain->layers[0].ffn).router.correction_bias);
}

TEST(MiniMaxM2Test, BindsPublishedNames) {
  const ModelSpec spec = LoadSpec("nano/minimax_m2");
  EXPECT_EQ(Find(spec, WeightRole::kRouterBias, 1).tensor,
            "model.layers.1.block_sparse_moe.e_score_correction_bias");
  EXPECT_EQ(Find(spec, WeightRole::kUp, 1, 7).tensor,
            "model.layers.1.block_sparse_moe.experts.7.w3.weight");
  EXPECT_EQ(Find(spec, WeightRole::kQueryNorm, 1).cols, 96u);
  EXPECT_EQ(Find(spec, WeightRole::kKeyNorm, 1).cols, 48u);
}

}  // namespace
}  // namespace essor::model
