#include "model/spec/families.h"

#include <cmath>
#include <string>
#include <variant>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/spec_test_support.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

bool NeverExists(const std::string&) { return false; }

TEST(FamiliesTest, Llama) {
  const ModelSpec spec = LoadSpec("nano/llama");
  EXPECT_EQ(spec.family, "llama");
  EXPECT_EQ(spec.hidden_size, 64u);
  EXPECT_EQ(spec.vocab_size, 288u);
  EXPECT_EQ(spec.max_context_tokens, 128u);
  EXPECT_EQ(spec.norm_eps, 0.01);
  EXPECT_FALSE(spec.tied_embeddings);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(286));
  EXPECT_FALSE(spec.bos_token.has_value());
  ASSERT_EQ(spec.layers.size(), 2u);
  const GroupedQueryAttention& attention = AttentionOf(spec, 1);
  EXPECT_EQ(attention.num_heads, 4u);
  EXPECT_EQ(attention.num_kv_heads, 2u);
  EXPECT_EQ(attention.head_dim, 16u);
  EXPECT_EQ(attention.softmax_scale, 0.25);
  EXPECT_FALSE(attention.qkv_bias || attention.output_bias);
  EXPECT_EQ(attention.qk_norm, QkNorm::kNone);
  EXPECT_EQ(attention.rope.theta, 100.0);
  EXPECT_EQ(attention.rope.rotary_dim, 16u);
  const auto& scaling = std::get<RopeSpec::Llama3Scaling>(attention.rope.scaling);
  EXPECT_EQ(
      scaling,
      (RopeSpec::Llama3Scaling{
          .factor = 8, .low_freq_factor = 1, .high_freq_factor = 2, .original_max_position = 16}));
  EXPECT_EQ(std::get<DenseFfn>(spec.layers[0].ffn).intermediate_size, 64u);
}

TEST(FamiliesTest, Ernie) {
  const ModelSpec dense = LoadSpec("nano/ernie4_5");
  EXPECT_TRUE(dense.tied_embeddings);
  EXPECT_TRUE(AttentionOf(dense, 0).rope.interleaved);
  const ModelSpec spec = LoadSpec("nano/ernie4_5_moe");
  EXPECT_TRUE(AttentionOf(spec, 2).rope.interleaved);
  EXPECT_EQ(AttentionOf(spec, 2).head_dim, 8u);
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(spec.layers[0].ffn));
  EXPECT_EQ(std::get<MoeFfn>(spec.layers[1].ffn),
            (MoeFfn{.num_experts = 8,
                    .top_k = 3,
                    .intermediate_size = 16,
                    .shared_intermediate_size = 32,
                    .router = {.score = RouterSpec::Score::kSoftmax, .correction_bias = true}}));
  nlohmann::json config = ReadConfig("nano/ernie4_5_moe");
  config["moe_layer_interval"] = 2;
  config["moe_layer_end_index"] = 1;
  const auto spread = SpecOf(config);
  ASSERT_TRUE(spread.ok()) << spread.status();
  EXPECT_TRUE(std::holds_alternative<MoeFfn>(spread->layers[1].ffn));
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(spread->layers[2].ffn));
  config["use_bias"] = true;
  EXPECT_THAT(std::string(SpecOf(config).status().message()), HasSubstr("use_bias"));
}

TEST(FamiliesTest, Glm4Moe) {
  const ModelSpec spec = LoadSpec("nano/glm4_moe");
  const GroupedQueryAttention& attention = AttentionOf(spec, 0);
  EXPECT_TRUE(attention.qkv_bias && !attention.output_bias);
  EXPECT_EQ(attention.qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(attention.rope.rotary_dim, 8u);
  EXPECT_FALSE(attention.rope.interleaved);
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(spec.layers[0].ffn));
  EXPECT_EQ(std::get<MoeFfn>(spec.layers[2].ffn),
            (MoeFfn{.num_experts = 8,
                    .top_k = 2,
                    .intermediate_size = 16,
                    .shared_intermediate_size = 16,
                    .router = {.score = RouterSpec::Score::kSigmoid,
                               .correction_bias = true,
                               .num_groups = 4,
                               .top_groups = 2,
                               .renormalise = true,
                               .scale = 2.5}}));
}

TEST(FamiliesTest, MiniMaxText01) {
  const ModelSpec spec = LoadSpec("configs/minimax-text-01");
  ASSERT_EQ(spec.layers.size(), 80u);
  const auto* lightning = std::get_if<LightningAttention>(&spec.layers[6].attention);
  ASSERT_NE(lightning, nullptr);
  EXPECT_EQ(lightning->num_heads, 64u);
  EXPECT_EQ(lightning->head_dim, 128u);
  ASSERT_EQ(lightning->slopes.size(), 64u);
  // 2^(-8 (h + 1) / 64) times 1 - 6/79.
  EXPECT_NEAR(lightning->slopes[63], std::exp2(-8.0) * (1 - 6.0 / 79), 1e-7);
  const GroupedQueryAttention& softmax = AttentionOf(spec, 7);
  EXPECT_EQ(softmax.num_kv_heads, 8u);
  EXPECT_EQ(softmax.rope.rotary_dim, 64u) << "half of a head";
  const ScaledResidual residual{.alpha = 3.5565588200778455, .beta = 1};
  for (const LayerSpec& layer : spec.layers) {
    EXPECT_EQ(layer.attention_residual, residual);
    EXPECT_EQ(layer.ffn_residual, residual);
  }
  EXPECT_NEAR(static_cast<double>(spec.NumParameters()), 456e9, 1e9);
  EXPECT_NEAR(static_cast<double>(spec.NumActiveParameters()), 45.9e9, 1.5e9);
  EXPECT_TRUE(IsUnusedTensor(spec, "model.layers.0.self_attn.slope_rate"));
  EXPECT_FALSE(IsUnusedTensor(spec, "model.layers.0.self_attn.norm.weight"));
}

TEST(FamiliesTest, MiniMaxKeepsItsTwoSetsOfKeysApart) {
  const ModelSpec vendor = LoadSpec("nano/minimax_text_01");
  const ModelSpec own = LoadSpec("nano/minimax");
  for (size_t i = 0; i < own.layers.size(); ++i) {
    EXPECT_EQ(vendor.layers[i].attention.index(), own.layers[i].attention.index());
    EXPECT_EQ(vendor.layers[i].attention_residual, own.layers[i].attention_residual);
    EXPECT_EQ(vendor.layers[i].ffn_residual, own.layers[i].ffn_residual);
  }
  EXPECT_EQ(AttentionOf(vendor, 1).rope.rotary_dim, 8u);
  EXPECT_EQ(AttentionOf(own, 1).rope.rotary_dim, 16u) << "without rotary_dim a whole head rotates";
}

TEST(FamiliesTest, Qwen2Moe) {
  const ModelSpec spec = LoadSpec("configs/qwen2-57b-a14b");
  ASSERT_EQ(spec.layers.size(), 28u);
  EXPECT_EQ(spec.hidden_size, 3584u);
  EXPECT_EQ(spec.max_context_tokens, 131072u);
  const GroupedQueryAttention& attention = AttentionOf(spec, 0);
  EXPECT_EQ(attention.num_heads, 28u);
  EXPECT_EQ(attention.num_kv_heads, 4u);
  EXPECT_EQ(attention.head_dim, 128u);
  EXPECT_TRUE(attention.qkv_bias && !attention.output_bias);
  EXPECT_EQ(attention.qk_norm, QkNorm::kNone);
  EXPECT_EQ(attention.rope, (RopeSpec{.theta = 1e6, .rotary_dim = 128}));
  for (const LayerSpec& layer : spec.layers) {
    EXPECT_EQ(std::get<GroupedQueryAttention>(layer.attention).sliding_window, 0u);
    EXPECT_EQ(std::get<MoeFfn>(layer.ffn), (MoeFfn{.num_experts = 64,
                                                   .top_k = 8,
                                                   .intermediate_size = 2560,
                                                   .shared_intermediate_size = 20480,
                                                   .shared_gate = true,
                                                   .router = {.renormalise = false}}));
  }
  EXPECT_NEAR(static_cast<double>(spec.NumParameters()), 57.41e9, 0.01e9);
  // 14B with the embedding.
  EXPECT_NEAR(static_cast<double>(spec.NumActiveParameters()), 13.7e9, 0.1e9);
  bool shared = false;
  for (const WeightBinding& binding : BindingsOf(spec, NeverExists)) {
    shared |= binding.tensor == "model.layers.27.mlp.shared_expert.down_proj.weight";
  }
  EXPECT_TRUE(shared);
}

TEST(FamiliesTest, Qwen2MoeWindowsEndAtMaxWindowLayers) {
  nlohmann::json config = ReadConfig("nano/qwen2_moe");
  config["max_window_layers"] = 3;
  const auto windows = [&config] {
    const auto spec = SpecOf(config);
    EXPECT_TRUE(spec.ok()) << spec.status();
    std::vector<uint32_t> of_layers;
    for (size_t layer = 0; layer < 4; ++layer) {
      of_layers.push_back(AttentionOf(*spec, layer).sliding_window);
    }
    return of_layers;
  };
  EXPECT_THAT(windows(), ElementsAre(8, 0, 8, 0)) << "every other layer from the first on";
  config["max_window_layers"] = 2;
  EXPECT_THAT(windows(), ElementsAre(8, 0, 0, 0));
  config["use_sliding_window"] = false;
  EXPECT_THAT(windows(), ElementsAre(0, 0, 0, 0));
  config["use_sliding_window"] = true;
  config["layer_types"] = {"full_attention", "sliding_attention", "full_attention",
                           "full_attention"};
  EXPECT_THAT(windows(), ElementsAre(0, 8, 0, 0)) << "layer_types goes first";
}

TEST(FamiliesTest, Qwen2MoeMixedLayers) {
  const ModelSpec spec = LoadSpec("nano/qwen2_moe_mixed");
  EXPECT_FALSE(AttentionOf(spec, 0).qkv_bias);
  for (size_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(spec.layers[layer].ffn, FfnSpec(DenseFfn{.intermediate_size = 40})) << layer;
  }
  EXPECT_TRUE(std::get<MoeFfn>(spec.layers[3].ffn).router.renormalise);
}

TEST(FamiliesTest, Qwen3Next) {
  const ModelSpec spec = LoadSpec("configs/qwen3-next-80b-a3b");
  ASSERT_EQ(spec.layers.size(), 48u);
  EXPECT_EQ(std::get<GatedDeltaNet>(spec.layers[46].attention),
            (GatedDeltaNet{.num_key_heads = 16,
                           .num_value_heads = 32,
                           .key_head_dim = 128,
                           .value_head_dim = 128,
                           .conv_taps = 4}));
  const GroupedQueryAttention& attention = AttentionOf(spec, 47);
  EXPECT_TRUE(attention.output_gate && !attention.qkv_bias);
  EXPECT_EQ(attention.head_dim, 256u);
  EXPECT_EQ(attention.num_kv_heads, 2u);
  EXPECT_EQ(attention.qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(attention.rope, (RopeSpec{.theta = 1e7, .rotary_dim = 64}));
  EXPECT_EQ(std::get<MoeFfn>(spec.layers[0].ffn), (MoeFfn{.num_experts = 512,
                                                          .top_k = 10,
                                                          .intermediate_size = 512,
                                                          .shared_intermediate_size = 512,
                                                          .shared_gate = true}));
  EXPECT_NEAR(static_cast<double>(spec.NumParameters()), 79.7e9, 0.1e9);
  EXPECT_NEAR(static_cast<double>(spec.NumActiveParameters()), 3.6e9, 0.3e9);
  EXPECT_TRUE(IsDraftTensor(spec, "mtp.layers.0.mlp.gate.weight"));
  EXPECT_FALSE(IsDraftTensor(spec, "model.layers.0.mlp.gate.weight"));
  for (const WeightBinding& binding : BindingsOf(spec, [](const std::string&) { return false; })) {
    const bool norm = binding.tensor.ends_with("norm.weight");
    EXPECT_EQ(binding.zero_centred, norm && !binding.tensor.ends_with("linear_attn.norm.weight"))
        << binding.tensor;
  }
}

TEST(FamiliesTest, GptOss) {
  const ModelSpec spec = LoadSpec("configs/gpt-oss-120b");
  ASSERT_EQ(spec.layers.size(), 36u);
  EXPECT_EQ(spec.max_context_tokens, 131072u);
  const GroupedQueryAttention& attention = AttentionOf(spec, 0);
  EXPECT_EQ(attention.head_dim, 64u);
  EXPECT_TRUE(attention.sinks && attention.qkv_bias && attention.output_bias);
  EXPECT_EQ(attention.sliding_window, 128u);
  EXPECT_EQ(AttentionOf(spec, 1).sliding_window, 0u);
  const auto& yarn = std::get<RopeSpec::YarnScaling>(attention.rope.scaling);
  EXPECT_FALSE(yarn.truncate);
  EXPECT_NEAR(yarn.attention_factor, 0.1 * std::log(32) + 1, 1e-12);
  EXPECT_EQ(std::get<MoeFfn>(spec.layers[35].ffn),
            (MoeFfn{.num_experts = 128,
                    .top_k = 4,
                    .intermediate_size = 2880,
                    .router = {.logit_bias = true},
                    .expert_bias = true,
                    .clamped = ClampedSwiglu{.limit = 7, .alpha = 1.702}}));

  nlohmann::json config = ReadConfig("configs/gpt-oss-20b");
  config.erase("layer_types");
  config.erase("sliding_window");
  config["attention_bias"] = false;
  const auto other = SpecOf(config);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(AttentionOf(*other, 22).sliding_window, 128u);
  EXPECT_EQ(AttentionOf(*other, 23).sliding_window, 0u);
  EXPECT_FALSE(AttentionOf(*other, 0).qkv_bias || AttentionOf(*other, 0).output_bias);
}

TEST(FamiliesTest, TensorsOfDraftLayersAreKnownByTheirNames) {
  const ModelSpec glm = LoadSpec("configs/glm-4.5");
  EXPECT_EQ(glm.num_draft_layers, 1u);
  EXPECT_TRUE(IsDraftTensor(glm, "model.layers.92.eh_proj.weight"));
  EXPECT_FALSE(IsDraftTensor(glm, "model.layers.91.eh_proj.weight"));
  EXPECT_FALSE(IsDraftTensor(glm, "model.layers.93.eh_proj.weight")) << "a model cut short";
  const ModelSpec ernie = LoadSpec("configs/ernie-4.5-300b-a47b");
  EXPECT_TRUE(IsDraftTensor(ernie, "model.mtp_block.0.mlp.up_proj.weight"));
  EXPECT_TRUE(IsDraftTensor(ernie, "model.mtp_emb_norm.0.weight"));
  EXPECT_FALSE(IsDraftTensor(ernie, "model.layers.54.mlp.up_proj.weight"));
}

TEST(FamiliesTest, RouterKeysThatContradictEachOtherAreRefused) {
  const struct {
    const char* key;
    nlohmann::json value;
    const char* message;
  } kCases[] = {
      {"n_group", 3, "n_group: 3 does not divide the 8 experts"},
      {"topk_group", 5, "topk_group: 5 of 4 groups"},
      {"num_experts_per_tok", 5, "topk_group: 2 of 4 groups with 4 experts cannot give 5"},
      {"num_experts_per_tok", 9, "num_experts_per_tok: 9 exceeds the 8 experts"},
      {"n_shared_experts", -1, "n_shared_experts: -1 is outside 0 to "},
      {"first_k_dense_replace", 1.5, "first_k_dense_replace: expected a whole number from 0"},
      {"first_k_dense_replace", -3, "first_k_dense_replace: -3 is outside 0 to "},
      {"scoring_func", "softmax", "scoring_func: \"softmax\" is not sigmoid"},
      {"topk_method", "greedy", "topk_method: \"greedy\" is not noaux_tc"},
      {"moe_layer_freq", 2, "moe_layer_freq: 2 is not 1"},
      {"routed_scaling_factor", 0, "routed_scaling_factor"},
  };
  for (const auto& test : kCases) {
    nlohmann::json config = ReadConfig("nano/glm4_moe");
    config[test.key] = test.value;
    EXPECT_THAT(std::string(SpecOf(config).status().message()), HasSubstr(test.message));
  }
}

TEST(FamiliesTest, LlamaTiedWithVersion5Keys) {
  const ModelSpec spec = LoadSpec("nano/llama_tied");
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_EQ(AttentionOf(spec, 0).rope.theta, 10000.0);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(AttentionOf(spec, 0).rope.scaling));
  EXPECT_EQ(AttentionOf(spec, 0).num_kv_heads, 3u);
}

TEST(FamiliesTest, LlamaAttentionBias) {
  nlohmann::json config = ReadConfig("nano/llama");
  config["attention_bias"] = true;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(AttentionOf(*spec, 0).qkv_bias);
  EXPECT_TRUE(AttentionOf(*spec, 0).output_bias);
}

TEST(FamiliesTest, Qwen2HasBiasesAndAWindowThatIsOff) {
  const ModelSpec spec = LoadSpec("nano/qwen2");
  EXPECT_TRUE(AttentionOf(spec, 0).qkv_bias);
  EXPECT_FALSE(AttentionOf(spec, 0).output_bias);
  EXPECT_EQ(AttentionOf(spec, 0).sliding_window, 0u);
}

TEST(FamiliesTest, QwenWindowsBeginAtMaxWindowLayers) {
  nlohmann::json config = ReadConfig("nano/qwen2");
  config["use_sliding_window"] = true;
  config["max_window_layers"] = 1;
  auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(AttentionOf(*spec, 0).sliding_window, 0u);
  EXPECT_EQ(AttentionOf(*spec, 1).sliding_window, 8u);

  config["layer_types"] = {"sliding_attention", "full_attention"};
  spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(AttentionOf(*spec, 0).sliding_window, 8u);
  EXPECT_EQ(AttentionOf(*spec, 1).sliding_window, 0u);
}

TEST(FamiliesTest, Qwen3) {
  const ModelSpec spec = LoadSpec("nano/qwen3");
  EXPECT_EQ(AttentionOf(spec, 0).qk_norm, QkNorm::kPerHead);
  EXPECT_FALSE(AttentionOf(spec, 0).qkv_bias);
  EXPECT_EQ(AttentionOf(spec, 0).head_dim, 16u);
  EXPECT_TRUE(spec.tied_embeddings);
}

TEST(FamiliesTest, Qwen3MoeMixedLayers) {
  const ModelSpec spec = LoadSpec("nano/qwen3_moe_mixed");
  ASSERT_EQ(spec.layers.size(), 4u);
  EXPECT_EQ(std::get<DenseFfn>(spec.layers[0].ffn).intermediate_size, 48u);
  const MoeFfn& moe = std::get<MoeFfn>(spec.layers[1].ffn);
  EXPECT_EQ(moe.num_experts, 8u);
  EXPECT_EQ(moe.top_k, 2u);
  EXPECT_EQ(moe.intermediate_size, 16u);
  EXPECT_FALSE(moe.router.renormalise);
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(spec.layers[2].ffn));
  EXPECT_TRUE(std::holds_alternative<MoeFfn>(spec.layers[3].ffn));
}

TEST(FamiliesTest, Qwen3MoeSparseStep) {
  nlohmann::json config = ReadConfig("nano/qwen3_moe_mixed");
  config["mlp_only_layers"] = nlohmann::json::array();
  config["decoder_sparse_step"] = 2;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(spec->layers[0].ffn));
  EXPECT_TRUE(std::holds_alternative<MoeFfn>(spec->layers[1].ffn));
}

TEST(FamiliesTest, Mixtral) {
  const ModelSpec spec = LoadSpec("nano/mixtral");
  const MoeFfn& moe = std::get<MoeFfn>(spec.layers[0].ffn);
  EXPECT_EQ(moe.num_experts, 8u);
  EXPECT_EQ(moe.intermediate_size, 24u);
  EXPECT_TRUE(moe.router.renormalise);
  EXPECT_EQ(AttentionOf(spec, 0).head_dim, 8u);  // null in the file
  EXPECT_EQ(AttentionOf(spec, 0).sliding_window, 0u);
}

TEST(FamiliesTest, MixtralWindow) {
  nlohmann::json config = ReadConfig("nano/mixtral");
  config["sliding_window"] = 9;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(AttentionOf(*spec, 1).sliding_window, 9u);
}

// The published totals: 235B with 22B active (21.5B without the embedding), 141B with 39B.
TEST(FamiliesTest, ParameterCountsOfPublishedShapes) {
  const ModelSpec qwen = LoadSpec("configs/qwen3-235b-a22b");
  EXPECT_NEAR(static_cast<double>(qwen.NumParameters()), 235.09e9, 0.01e9);
  EXPECT_NEAR(static_cast<double>(qwen.NumActiveParameters()), 21.5e9, 0.1e9);
  const ModelSpec ernie = LoadSpec("configs/ernie-4.5-300b-a47b");
  EXPECT_NEAR(static_cast<double>(ernie.NumParameters()), 300e9, 1e9);
  EXPECT_NEAR(static_cast<double>(ernie.NumActiveParameters()), 47e9, 1e9);
  const ModelSpec glm = LoadSpec("configs/glm-4.5");
  EXPECT_NEAR(static_cast<double>(glm.NumParameters()), 353e9, 4e9);  // without its MTP layer
  EXPECT_NEAR(static_cast<double>(glm.NumActiveParameters()), 32e9, 1.5e9);
  const ModelSpec oss = LoadSpec("configs/gpt-oss-120b");
  EXPECT_EQ(oss.NumParameters(), 116829156672u);
  EXPECT_EQ(oss.NumActiveParameters(), 5132849472u);
  const ModelSpec small_oss = LoadSpec("configs/gpt-oss-20b");
  EXPECT_EQ(small_oss.NumParameters(), 20914757184u);
  EXPECT_EQ(small_oss.NumActiveParameters(), 3608307264u);
  const ModelSpec mixtral = LoadSpec("configs/mixtral-8x22b");
  EXPECT_NEAR(static_cast<double>(mixtral.NumParameters()), 140.6e9, 0.1e9);
  EXPECT_NEAR(static_cast<double>(mixtral.NumActiveParameters()), 39.0e9, 0.2e9);
}

// The goldens' checkpoint has exactly these elements: 291 x 72 tied, two layers.
TEST(FamiliesTest, ParametersOfATiedModelCountTheEmbeddingOnce) {
  const ModelSpec spec = LoadSpec("nano/llama_tied");
  const uint64_t layer = 72 * 72 + 2 * 24 * 72 + 72 * 72 + 3 * 80 * 72 + 2 * 72;
  EXPECT_EQ(spec.NumParameters(), 291u * 72 + 2 * layer + 72);
  EXPECT_EQ(spec.NumActiveParameters(), spec.NumParameters());
}

TEST(FamiliesTest, YarnStretchesTheContext) {
  nlohmann::json config = ReadConfig("nano/qwen3");
  config["rope_parameters"] = {{"rope_type", "yarn"},
                               {"factor", 4.0},
                               {"rope_theta", 10000.0},
                               {"original_max_position_embeddings", 128}};
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->max_context_tokens, 512u);
}

TEST(FamiliesTest, EosTokensMayBeAList) {
  nlohmann::json config = ReadConfig("nano/llama");
  config["eos_token_id"] = {5, 6};
  config["bos_token_id"] = 1;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->eos_tokens, ElementsAre(5, 6));
  EXPECT_EQ(spec->bos_token, 1u);
}

struct BadConfig {
  const char* path;
  const char* key;
  nlohmann::json value;
  const char* message;
};

TEST(FamiliesTest, RefusesWithTheKeysName) {
  const BadConfig kCases[] = {
      {"nano/llama", "model_type", "gpt9",
       "config.json: model_type: unknown family \"gpt9\"; known: deepseek_v3, "},
      {"nano/qwen2_moe", "shared_expert_intermediate_size", nullptr,
       "shared_expert_intermediate_size: missing"},
      {"nano/qwen2_moe", "layer_types", {"full_attention"}, "layer_types: 1 entries for 4 layers"},
      {"nano/qwen3_next", "linear_num_value_heads", 6,
       "linear_num_value_heads: 6 is not a multiple of the 4 key heads"},
      {"nano/qwen3_next", "linear_conv_kernel_dim", 9,
       "linear_conv_kernel_dim: 9 is outside 1 to 8"},
      {"nano/qwen3_next", "attention_bias", true, "attention_bias: is not supported beside"},
      {"nano/minimax_text_01", "head_dim", 1 << 17,
       "head_dim: states of 68719476736 values exceed"},
      {"nano/minimax_text_01", "postnorm", false, "postnorm: false is not supported"},
      {"nano/minimax_text_01", "shared_intermediate_size", 32,
       "shared_intermediate_size: 32: a shared expert is not supported"},
      {"nano/minimax_text_01", "rotary_dim", 18,
       "rotary_dim: 18 is odd or exceeds the head_dim of 16"},
      {"nano/minimax_text_01", "attn_type_list", {0, 1}, "attn_type_list: 2 entries for 4 layers"},
      {"nano/minimax_text_01",
       "attn_type_list",
       {0, 1, 2, 1},
       "attn_type_list: attention type 2 is not 0 or 1"},
      {"nano/minimax", "layer_types", {"full_attention"}, "layer_types: 1 entries for 4 layers"},
      {"nano/llama", "model_type", nullptr, "config.json: model_type: missing"},
      {"nano/llama", "hidden_size", 0, "hidden_size: 0 is outside 1 to 1048576"},
      {"nano/llama", "hidden_size", -64, "hidden_size: -64 is outside"},
      {"nano/llama", "hidden_size", nullptr, "hidden_size: missing"},
      {"nano/llama", "num_hidden_layers", 2000000000, "num_hidden_layers: 2000000000 is outside"},
      {"nano/llama", "vocab_size", "288", "vocab_size: expected a whole number"},
      {"nano/llama", "num_key_value_heads", 3,
       "num_key_value_heads: 3 does not divide the 4 attention heads"},
      {"nano/llama", "num_key_value_heads", 8, "8 does not divide the 4 attention heads"},
      {"nano/llama", "head_dim", 15, "head_dim: 15 rotated dimensions of 15: must be even"},
      {"nano/llama", "hidden_act", "gelu", "hidden_act: activation \"gelu\" is not silu"},
      {"nano/llama", "rms_norm_eps", 0, "rms_norm_eps: 0 is not above 0"},
      {"nano/llama", "mlp_bias", true, "mlp_bias: biases of the FFN are not supported"},
      {"nano/llama", "eos_token_id", 288, "eos_token_id: 288 is outside the vocabulary of 288"},
      {"nano/llama", "eos_token_id", -1, "eos_token_id: -1 is outside the vocabulary"},
      {"nano/llama", "max_position_embeddings", 0, "max_position_embeddings: 0 is outside"},
      {"nano/llama",
       "quantization_config",
       {{"quant_method", "awq"}},
       "quantization_config.quant_method: \"awq\" checkpoints are not supported"},
      {"nano/llama",
       "quantization_config",
       {{"quant_method", "fp8"}, {"fmt", "e5m2"}},
       "quantization_config.fmt: \"e5m2\" is not e4m3"},
      {"nano/llama",
       "quantization_config",
       {{"quant_method", "fp8"}, {"activation_scheme", "static"}},
       "quantization_config.activation_scheme: \"static\" is not dynamic"},
      {"nano/llama",
       "quantization_config",
       {{"quant_method", "fp8"}, {"weight_block_size", {64, 128}}},
       "quantization_config.weight_block_size: [64, 128] is not [128, 128]"},
      {"nano/llama",
       "quantization_config",
       {{"quant_method", "fp8"}},
       "quantization_config.weight_block_size: [] is not [128, 128]"},
      {"nano/qwen3_moe", "num_experts_per_tok", 9, "num_experts_per_tok: 9 exceeds the 8 experts"},
      {"nano/qwen3_moe", "num_experts", 0, "num_experts: 0 is outside"},
      {"nano/qwen3_moe", "moe_intermediate_size", nullptr, "moe_intermediate_size: missing"},
      {"nano/qwen3_moe", "mlp_only_layers", "1", "mlp_only_layers: expected a whole number or"},
      {"nano/mixtral", "hidden_size", 33,
       "hidden_size: 33 is not a multiple of the 4 attention heads, and head_dim is missing"},
      {"nano/mixtral", "sliding_window", -1, "sliding_window: -1 is outside"},
      {"nano/qwen3", "layer_types", {"full_attention"}, "layer_types: 1 entries for 3 layers"},
      {"nano/qwen3",
       "layer_types",
       {"full_attention", "linear_attention", "full_attention"},
       "layer_types: layer type \"linear_attention\" is not supported"},
      {"nano/qwen3",
       "layer_types",
       {"full_attention", "sliding_attention", "full_attention"},
       "layer_types: names sliding_attention, but use_sliding_window is not set"},
  };
  for (const BadConfig& test : kCases) {
    nlohmann::json config = ReadConfig(test.path);
    config[test.key] = test.value;
    const auto spec = SpecOf(config);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << test.key;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(test.message));
  }
}

TEST(FamiliesTest, GptOssRefusesWithTheKeysName) {
  const BadConfig kCases[] = {
      {"", "rope_scaling", nullptr, "config.json: rope_scaling: missing"},
      {"", "swiglu_limit", 0, "swiglu_limit: 0 is not above 0"},
      {"", "swiglu_alpha", "x", "swiglu_alpha: "},
      {"", "num_experts_per_tok", 33, "num_experts_per_tok: 33 exceeds the 32 experts"},
      {"", "layer_types", {"sliding_attention"}, "layer_types: 1 entries for 24 layers"},
  };
  for (const BadConfig& test : kCases) {
    nlohmann::json config = ReadConfig("configs/gpt-oss-20b");
    config[test.key] = test.value;
    EXPECT_THAT(std::string(SpecOf(config).status().message()), HasSubstr(test.message));
  }
}

TEST(FamiliesTest, OtherPackedIntegersAreRefused) {
  const struct {
    const char* path;  // in quantization_config
    nlohmann::json value;
    const char* message;
  } kCases[] = {
      {"/format", "int-quantized", "format: \"int-quantized\" is not pack-quantized"},
      {"/config_groups/group_0/weights/num_bits", 8, "weights.num_bits: 8 is not 4"},
      {"/config_groups/group_0/weights/group_size", 128, "weights.group_size: 128 is not 32"},
      {"/config_groups/group_0/weights/group_size", nullptr, "weights.group_size: missing"},
      {"/config_groups/group_0/weights/type", "float", "weights.type: \"float\" is not int"},
      {"/config_groups/group_0/weights/symmetric", false, "weights.symmetric: weights with zero"},
      {"/config_groups/group_0/weights/actorder", "group", "weights.actorder: reordered columns"},
      {"/config_groups/group_0/input_activations", {{"num_bits", 8}}, "quantised activations"},
      {"/config_groups/group_1", {{"weights", 1}}, "config_groups.group_1: several kinds"},
      {"/config_groups/other", {{"weights", 1}}, "config_groups.other: several kinds"},
      {"/config_groups", nlohmann::json::object(), "config_groups: holds no group"},
      {"/config_groups", {{"attention", 1}}, "config_groups.attention: expected an object"},
      {"/config_groups", nullptr, "quantization_config.config_groups: "},
  };
  for (const auto& test : kCases) {
    nlohmann::json config = ReadConfig("nano/kimi_k2_int4");
    config["quantization_config"][nlohmann::json::json_pointer(test.path)] = test.value;
    const absl::Status status = SpecOf(config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.path;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

// A lying config must not make us list millions of experts.
TEST(FamiliesTest, RefusesMoreExpertsThanAnyModelHas) {
  for (const char* path : {"nano/qwen3_moe", "nano/mixtral"}) {
    nlohmann::json config = ReadConfig(path);
    config["num_hidden_layers"] = 1000;
    config.erase("num_local_experts");
    config["num_experts"] = 4000;
    const auto spec = SpecOf(config);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(spec.status().message()),
              "config.json: num_experts: 4000 in each of 1000 layers are more than 262144");
  }
}

const WeightBinding& Find(const std::vector<WeightBinding>& bindings, WeightRole role,
                          int32_t layer = -1, int32_t expert = -1) {
  for (const WeightBinding& binding : bindings) {
    if (binding.role == role && binding.layer == layer && binding.expert == expert) return binding;
  }
  ADD_FAILURE() << "no binding for role " << static_cast<int>(role);
  return bindings.front();
}

TEST(BindingsTest, DenseNames) {
  const auto bindings = BindingsOf(LoadSpec("nano/qwen2"), NeverExists);
  EXPECT_EQ(bindings.front().tensor, "model.embed_tokens.weight");
  EXPECT_EQ(bindings.back().tensor, "lm_head.weight");
  const WeightBinding& query = Find(bindings, WeightRole::kQuery, 1);
  EXPECT_EQ(query.tensor, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(query.rows, 48u);
  EXPECT_EQ(query.cols, 48u);
  const WeightBinding& bias = Find(bindings, WeightRole::kKeyBias, 0);
  EXPECT_EQ(bias.tensor, "model.layers.0.self_attn.k_proj.bias");
  EXPECT_EQ(bias.rows, 1u);
  EXPECT_EQ(bias.cols, 16u);
  EXPECT_EQ(Find(bindings, WeightRole::kDown, 0).tensor, "model.layers.0.mlp.down_proj.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kFfnNorm, 0).tensor,
            "model.layers.0.post_attention_layernorm.weight");
}

TEST(BindingsTest, TiedModelsHaveNoHead) {
  const auto bindings = BindingsOf(LoadSpec("nano/llama_tied"), NeverExists);
  EXPECT_EQ(bindings.back().role, WeightRole::kFinalNorm);
}

TEST(BindingsTest, MixtralNames) {
  const auto bindings = BindingsOf(LoadSpec("nano/mixtral"), NeverExists);
  EXPECT_EQ(Find(bindings, WeightRole::kRouter, 1).tensor,
            "model.layers.1.block_sparse_moe.gate.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kGate, 1, 7).tensor,
            "model.layers.1.block_sparse_moe.experts.7.w1.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kUp, 1, 7).tensor,
            "model.layers.1.block_sparse_moe.experts.7.w3.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kDown, 1, 7).tensor,
            "model.layers.1.block_sparse_moe.experts.7.w2.weight");
}

// transformers 5 keeps experts stacked; a checkpoint saved that way has Mixtral's under "mlp".
TEST(BindingsTest, StackedExperts) {
  const auto stacked = [](const std::string& name) {
    return name.find("mlp.gate.weight") != std::string::npos ||
           name.find("mlp.experts.gate_up_proj") != std::string::npos;
  };
  for (const char* path : {"nano/mixtral", "nano/qwen3_moe"}) {
    const ModelSpec spec = LoadSpec(path);
    const uint64_t width = std::get<MoeFfn>(spec.layers[1].ffn).intermediate_size;
    const auto bindings = BindingsOf(spec, stacked);
    EXPECT_EQ(Find(bindings, WeightRole::kRouter, 1).tensor, "model.layers.1.mlp.gate.weight");
    const WeightBinding& gate = Find(bindings, WeightRole::kGate, 1, 3);
    EXPECT_EQ(gate.tensor, "model.layers.1.mlp.experts.gate_up_proj");
    EXPECT_EQ(gate.first_row, 3 * 2 * width);
    EXPECT_EQ(Find(bindings, WeightRole::kUp, 1, 3).first_row, 3 * 2 * width + width);
    const WeightBinding& down = Find(bindings, WeightRole::kDown, 1, 3);
    EXPECT_EQ(down.tensor, "model.layers.1.mlp.experts.down_proj");
    EXPECT_EQ(down.first_row, 3u * 32);
    EXPECT_EQ(down.rows, 32u);
    EXPECT_EQ(down.cols, width);
  }
}

// Gates and ups in turn: as columns in plain types, as rows in MXFP4, as entries of biases.
TEST(BindingsTest, GptOssExperts) {
  const ModelSpec spec = LoadSpec("nano/gpt_oss_mxfp4");
  const std::string experts = "model.layers.1.mlp.experts.";
  const auto plain = BindingsOf(spec, NeverExists);
  EXPECT_EQ(Find(plain, WeightRole::kRouter, 1).tensor, "model.layers.1.mlp.router.weight");
  EXPECT_EQ(Find(plain, WeightRole::kRouterLogitBias, 1).tensor, "model.layers.1.mlp.router.bias");
  EXPECT_EQ(Find(plain, WeightRole::kSinks, 1).tensor, "model.layers.1.self_attn.sinks");
  const WeightBinding& up = Find(plain, WeightRole::kUp, 1, 3);
  EXPECT_EQ(up.tensor, experts + "gate_up_proj");
  EXPECT_TRUE(up.transposed);
  EXPECT_EQ(up.first_row, 3u * 192);
  EXPECT_EQ(up.output_step, 2u);
  EXPECT_EQ(up.first_col, 1u);
  EXPECT_EQ(up.TensorRowElements(), 2u * 160);
  EXPECT_EQ(Find(plain, WeightRole::kGate, 1, 3).first_col, 0u);
  const WeightBinding& down = Find(plain, WeightRole::kDown, 1, 3);
  EXPECT_TRUE(down.transposed);
  EXPECT_EQ(down.first_row, 3u * 160);
  EXPECT_EQ(down.output_step, 1u);
  const WeightBinding& bias = Find(plain, WeightRole::kUpBias, 1, 3);
  EXPECT_EQ(bias.tensor, experts + "gate_up_proj_bias");
  EXPECT_EQ(bias.first_row, 3u);
  EXPECT_EQ(bias.first_col, 1u);
  EXPECT_EQ(bias.TensorRowElements(), 2u * 160);

  const auto packed =
      BindingsOf(spec, [](const std::string& name) { return name.ends_with("_blocks"); });
  const WeightBinding& blocks = Find(packed, WeightRole::kUp, 1, 3);
  EXPECT_EQ(blocks.tensor, experts + "gate_up_proj_blocks");
  EXPECT_EQ(blocks.scales, experts + "gate_up_proj_scales");
  EXPECT_EQ(blocks.packed_as, DType::kF4E2M1);
  EXPECT_FALSE(blocks.transposed);
  EXPECT_EQ(blocks.first_row, 3u * 2 * 160 + 1);
  EXPECT_EQ(blocks.first_col, 0u);
}

}  // namespace
}  // namespace essor::model
