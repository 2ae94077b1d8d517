#include <fstream>
#include <string>
#include <variant>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/families.h"
#include "model/spec/logical_weights.h"
#include "model/spec/rope_frequencies.h"
#include "nlohmann/json.hpp"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

// The published config.json of DeepSeek-V3, where attention is concerned; without expert layers.
nlohmann::json PublishedConfig() {
  return {{"model_type", "deepseek_v3"},
          {"hidden_size", 7168},
          {"intermediate_size", 18432},
          {"num_hidden_layers", 61},
          {"first_k_dense_replace", 61},
          {"num_attention_heads", 128},
          {"num_key_value_heads", 128},
          {"q_lora_rank", 1536},
          {"kv_lora_rank", 512},
          {"qk_nope_head_dim", 128},
          {"qk_rope_head_dim", 64},
          {"v_head_dim", 128},
          {"attention_bias", false},
          {"vocab_size", 129280},
          {"tie_word_embeddings", false},
          {"rope_theta", 10000},
          {"rope_scaling",
           {{"type", "yarn"},
            {"factor", 40},
            {"original_max_position_embeddings", 4096},
            {"beta_fast", 32},
            {"beta_slow", 1},
            {"mscale", 1.0},
            {"mscale_all_dim", 1.0}}},
          {"rms_norm_eps", 1e-6},
          {"hidden_act", "silu"},
          {"num_nextn_predict_layers", 1},
          {"max_position_embeddings", 163840},
          {"bos_token_id", 0},
          {"eos_token_id", 1}};
}

absl::StatusOr<ModelSpec> SpecOf(const nlohmann::json& config) {
  const auto view = ConfigView::Parse(config.dump(), "config.json");
  EXPECT_TRUE(view.ok()) << view.status();
  return SpecFromConfig(*view);
}

const LatentAttention& AttentionOf(const ModelSpec& spec) {
  return std::get<LatentAttention>(spec.layers.front().attention);
}

TEST(DeepseekV3Test, PublishedAttention) {
  const auto spec = SpecOf(PublishedConfig());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->max_context_tokens, 163840u);
  const LatentAttention& attention = AttentionOf(*spec);
  EXPECT_EQ(attention.num_heads, 128u);
  EXPECT_EQ(attention.query_head_dim(), 192u);
  EXPECT_EQ(attention.cached_dim(), 576u);
  EXPECT_EQ(attention.latent_norm_eps, 1e-6);
  EXPECT_TRUE(attention.rope.interleaved);
  EXPECT_EQ(attention.rope.rotary_dim, 64u);
  // 192^-0.5 * (0.1 ln 40 + 1)^2, and nothing of it left for the tables.
  EXPECT_NEAR(attention.softmax_scale, 0.0721687837 * 1.8738533, 1e-7);
  EXPECT_EQ(FrequenciesOf(attention.rope).attention_factor, 1.0f);
}

TEST(DeepseekV3Test, WeightsOfOneLayerCountUp) {
  nlohmann::json config = PublishedConfig();
  config["num_hidden_layers"] = 1;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  // Down and up of the query, down and up of the latent, output, two latent norms.
  const uint64_t attention =
      7168 * 1536 + 1536 * 24576 + 576 * 7168 + 512 * 32768 + 16384 * 7168 + 1536 + 512;
  const uint64_t rest = uint64_t{3} * 7168 * 18432 + 2 * 7168;
  EXPECT_EQ(spec->NumParameters(), attention + rest + uint64_t{2} * 129280 * 7168 + 7168);
}

TEST(DeepseekV3Test, EpsilonOfTheConfigIsNotThatOfTheLatentNorms) {
  nlohmann::json config = PublishedConfig();
  config["rms_norm_eps"] = 1e-5;  // Kimi K2.5
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->norm_eps, 1e-5);
  EXPECT_EQ(AttentionOf(*spec).latent_norm_eps, 1e-6);
}

// Moonlight: no latent for queries, no scaling. Its file says model_type deepseek_v3 as well.
TEST(DeepseekV3Test, WithoutQueryLatentAndScaling) {
  nlohmann::json config = PublishedConfig();
  config["q_lora_rank"] = nullptr;
  config["rope_scaling"] = nullptr;
  config["rope_interleave"] = false;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(AttentionOf(*spec).q_lora_rank, 0u);
  EXPECT_FALSE(AttentionOf(*spec).rope.interleaved);
  EXPECT_NEAR(AttentionOf(*spec).softmax_scale, 0.0721687837, 1e-9);
  for (const WeightBinding& binding : BindingsOf(*spec, [](const std::string&) { return false; })) {
    EXPECT_NE(binding.role, WeightRole::kQueryDown);
    if (binding.role != WeightRole::kQuery) continue;
    EXPECT_THAT(binding.tensor, HasSubstr("self_attn.q_proj.weight"));
    EXPECT_EQ(binding.cols, 7168u);
  }
}

TEST(DeepseekV3Test, KimiK2IsTheSameMachine) {
  nlohmann::json config = PublishedConfig();
  config["model_type"] = "kimi_k2";
  config["num_attention_heads"] = 64;
  config["rope_scaling"]["factor"] = 32;
  config["rope_scaling"]["beta_fast"] = 1;
  const auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->family, "kimi_k2");
  EXPECT_NEAR(AttentionOf(*spec).softmax_scale, 0.0721687837 * 1.34657359 * 1.34657359, 1e-7);
}

TEST(DeepseekV3Test, PartsOfFusedProjections) {
  const auto spec = SpecOf(PublishedConfig());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto bindings = BindingsOf(*spec, [](const std::string&) { return false; });
  const auto find = [&](WeightRole role, int32_t head) {
    for (const WeightBinding& binding : bindings) {
      if (binding.layer == 2 && binding.role == role && binding.head == head) return binding;
    }
    ADD_FAILURE() << "no binding for role " << static_cast<int>(role);
    return bindings.front();
  };
  const std::string prefix = "model.layers.2.self_attn.";
  EXPECT_EQ(find(WeightRole::kQueryDown, -1).tensor, prefix + "q_a_proj.weight");
  EXPECT_EQ(find(WeightRole::kQuery, -1).tensor, prefix + "q_b_proj.weight");
  const WeightBinding rope_key = find(WeightRole::kRopeKey, -1);
  EXPECT_EQ(rope_key.tensor, prefix + "kv_a_proj_with_mqa.weight");
  EXPECT_EQ(rope_key.first_row, 512u);
  EXPECT_EQ(rope_key.rows, 64u);
  const WeightBinding key = find(WeightRole::kKeyUp, 3);
  EXPECT_EQ(key.tensor, prefix + "kv_b_proj.weight");
  EXPECT_TRUE(key.transposed);
  EXPECT_EQ(key.first_row, 3u * 256);
  EXPECT_EQ(key.rows, 512u);
  EXPECT_EQ(key.cols, 128u);
  const WeightBinding value = find(WeightRole::kValueUp, 3);
  EXPECT_EQ(value.tensor, prefix + "kv_b_proj.weight");
  EXPECT_FALSE(value.transposed);
  EXPECT_EQ(value.first_row, 3u * 256 + 128);
  EXPECT_EQ(value.rows, 128u);
  EXPECT_EQ(value.cols, 512u);
}

TEST(DeepseekV3Test, DraftLayersAreKnownByTheirNumber) {
  const auto spec = SpecOf(PublishedConfig());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(IsDraftTensor(*spec, "model.layers.61.eh_proj.weight"));
  EXPECT_FALSE(IsDraftTensor(*spec, "model.layers.60.eh_proj.weight"));
  EXPECT_FALSE(IsDraftTensor(*spec, "model.layers.weight"));
  EXPECT_FALSE(IsDraftTensor(*spec, "model.norm.weight"));
  ModelSpec other = *spec;
  other.family = "llama";
  EXPECT_FALSE(IsDraftTensor(other, "model.layers.61.eh_proj.weight"));
}

TEST(DeepseekV3Test, RefusesWithTheKeysName) {
  const struct {
    const char* key;
    nlohmann::json value;
    const char* message;
  } kCases[] = {
      {"attention_bias", true, "attention_bias: biases of latent attention are not supported"},
      {"kv_lora_rank", nullptr, "kv_lora_rank: missing"},
      {"qk_rope_head_dim", 63, "qk_rope_head_dim: 63 is odd"},
      {"v_head_dim", 0, "v_head_dim: 0 is outside"},
      {"q_lora_rank", 0, "q_lora_rank: 0 is outside"},
      {"qk_nope_head_dim", 1000000, "qk_nope_head_dim: 128 heads of 1000064 exceed a width"},
      {"v_head_dim", 1000000, "v_head_dim: 128 heads of 1000128 exceed a width"},
      {"kv_lora_rank", 1000000, "kv_lora_rank: 128 heads of 1000064 exceed a width"},
      {"first_k_dense_replace", 3, "n_routed_experts"},
      {"num_hidden_layers", 1000, "n_routed_experts"},
  };
  for (const auto& test : kCases) {
    nlohmann::json config = PublishedConfig();
    config[test.key] = test.value;
    const auto spec = SpecOf(config);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << test.key;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(test.message));
  }
}

// 671B with 37B active, of which the embedding's 0.9B are looked up: the published figures without
// the MTP layer.
TEST(DeepseekV3Test, PublishedModelWithItsExperts) {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/configs/deepseek-v3/config.json");
  const auto spec = SpecOf(nlohmann::json::parse(file));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_NEAR(static_cast<double>(spec->NumParameters()), 671e9, 1e9);
  EXPECT_NEAR(static_cast<double>(spec->NumActiveParameters()), 36.5e9, 0.7e9);
  EXPECT_TRUE(std::holds_alternative<DenseFfn>(spec->layers[2].ffn));
  EXPECT_EQ(std::get<MoeFfn>(spec->layers[3].ffn),
            (MoeFfn{.num_experts = 256,
                    .top_k = 8,
                    .intermediate_size = 2048,
                    .shared_intermediate_size = 2048,
                    .router = {.score = RouterSpec::Score::kSigmoid,
                               .correction_bias = true,
                               .num_groups = 8,
                               .top_groups = 4,
                               .renormalise = true,
                               .scale = 2.5}}));
}

nlohmann::json V32Config() {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) +
                     "/tests/data/configs/deepseek-v3.2/config.json");
  return nlohmann::json::parse(file);
}

// README_WEIGHTS.md of DeepSeek-V3 counts 11.5 billion parameters of its own, which are those of
// the layer proper, beside the model's embedding and head, which the checkpoint holds once more.
TEST(DeepseekV3Test, PublishedDraftLayer) {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/configs/deepseek-v3/config.json");
  const auto view = ConfigView::Parse(nlohmann::json::parse(file).dump(), "config.json");
  ASSERT_TRUE(view.ok()) << view.status();
  const auto skipped = SpecFromConfig(*view);
  const auto spec = SpecFromConfig(*view, DraftLayers::kLoad);
  ASSERT_TRUE(spec.ok() && skipped.ok()) << spec.status();
  EXPECT_TRUE(skipped->draft_layers.empty());
  ASSERT_EQ(spec->draft_layers.size(), 1u);
  EXPECT_EQ(spec->draft_layers[0], spec->layers.back());
  EXPECT_EQ(spec->NumParameters(), skipped->NumParameters());
  const auto own_parameters = [&](uint32_t layer) {
    uint64_t total = 0;
    for (const WeightBinding& weight : LayerWeights(*spec, layer)) {
      const bool own = weight.role != WeightRole::kEmbedding && weight.role != WeightRole::kHead;
      if (own) total += weight.rows * weight.cols;
    }
    return total;
  };
  EXPECT_EQ(own_parameters(61), own_parameters(60) + 2 * 7168 * 7168 + 3 * 7168);
  EXPECT_NEAR(static_cast<double>(own_parameters(60)), 11.5e9, 0.05e9);
}

TEST(DeepseekV3Test, DraftLayersAreLoadedOrSkipped) {
  EXPECT_EQ(ParseDraftLayers("load").value(), DraftLayers::kLoad);
  EXPECT_EQ(ParseDraftLayers("skip").value(), DraftLayers::kSkip);
  EXPECT_EQ(ParseDraftLayers("some").status(),
            absl::InvalidArgumentError("draft layers: \"some\" is not skip or load"));
}

// Whose draft layer would have experts that no layer describes.
TEST(DeepseekV3Test, DraftLayersOfAModelWithoutExpertsAreRefused) {
  const auto view = ConfigView::Parse(PublishedConfig().dump(), "config.json");
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_TRUE(SpecFromConfig(*view).ok());
  EXPECT_THAT(std::string(SpecFromConfig(*view, DraftLayers::kLoad).status().message()),
              HasSubstr("only full layers with experts behind the last one are"));
}

// V3 with an indexer of 14M parameters in each of 61 layers.
TEST(DeepseekV32Test, PublishedModel) {
  const auto spec = SpecOf(V32Config());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const LatentAttention& attention = AttentionOf(*spec);
  EXPECT_EQ(attention.indexer,
            (SparseIndexer{.num_heads = 64, .head_dim = 128, .top_k = 2048, .key_norm_eps = 1e-6}));
  EXPECT_EQ(attention.cached_dim(), 576u);
  EXPECT_TRUE(attention.rope.interleaved);
  EXPECT_EQ(spec->num_draft_layers, 1u);
  EXPECT_EQ(spec->max_context_tokens, 163840u);
  nlohmann::json without = V32Config();
  without["model_type"] = "deepseek_v3";
  const auto v3 = SpecOf(without);
  ASSERT_TRUE(v3.ok()) << v3.status();
  EXPECT_FALSE(AttentionOf(*v3).indexer.has_value());
  const uint64_t indexer = 64 * 128 * 1536 + 128 * 7168 + 2 * 128 + 64 * 7168;
  EXPECT_EQ(spec->NumParameters(), v3->NumParameters() + 61 * indexer);
  EXPECT_NEAR(static_cast<double>(spec->NumParameters()), 672e9, 1e9);
}

TEST(DeepseekV32Test, BindsTheIndexer) {
  const auto spec = SpecOf(V32Config());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const struct {
    WeightRole role;
    const char* name;
    uint64_t rows;
    uint64_t cols;
  } kExpected[] = {{WeightRole::kIndexQuery, "wq_b.weight", 8192, 1536},
                   {WeightRole::kIndexKey, "wk.weight", 128, 7168},
                   {WeightRole::kIndexKeyNorm, "k_norm.weight", 1, 128},
                   {WeightRole::kIndexKeyNormBias, "k_norm.bias", 1, 128},
                   {WeightRole::kIndexWeights, "weights_proj.weight", 64, 7168}};
  uint32_t found = 0;
  for (const WeightBinding& binding : BindingsOf(*spec, [](const auto&) { return false; })) {
    for (const auto& expected : kExpected) {
      if (binding.role != expected.role || binding.layer != 60) continue;
      ++found;
      EXPECT_EQ(binding.tensor, std::string("model.layers.60.self_attn.indexer.") + expected.name);
      EXPECT_EQ(binding.rows, expected.rows);
      EXPECT_EQ(binding.cols, expected.cols);
      EXPECT_EQ(IsVector(binding.role), expected.rows == 1);
    }
  }
  EXPECT_EQ(found, 5u);
}

TEST(DeepseekV32Test, RefusesWithTheKeysName) {
  const struct {
    const char* key;
    nlohmann::json value;
    const char* message;
  } kCases[] = {
      {"q_lora_rank", nullptr, "q_lora_rank: missing: the indexer reads the query's latent"},
      {"index_n_heads", 0, "index_n_heads: 0 is outside"},
      {"index_topk", 0, "index_topk: 0 is outside"},
      {"index_topk", 1000000, "index_topk: 1000000 is outside 1 to 65536"},
      {"index_head_dim", 32, "index_head_dim: 32 is less than the 64 dims that rotate"},
      {"index_head_dim", 100000, "index_head_dim: 64 heads of 100000 exceed a width"},
      {"mlp_layer_types", {"dense"}, "mlp_layer_types: differs from first_k_dense_replace"},
  };
  for (const auto& test : kCases) {
    nlohmann::json config = V32Config();
    config[test.key] = test.value;
    const auto spec = SpecOf(config);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << test.key;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(test.message));
  }
  nlohmann::json config = V32Config();
  std::vector<std::string> types(61, "sparse");
  types[0] = types[1] = types[2] = "dense";
  config["mlp_layer_types"] = types;
  EXPECT_TRUE(SpecOf(config).ok());
}

// Each head has weights of its own: a lying config must not make us list millions of them.
TEST(DeepseekV3Test, RefusesMoreHeadsThanAnyModelHas) {
  nlohmann::json config = PublishedConfig();
  config["num_hidden_layers"] = 1000;
  config["num_attention_heads"] = 1000;
  EXPECT_THAT(std::string(SpecOf(config).status().message()),
              HasSubstr("num_attention_heads: 1000 in each of 1000 layers are more than 262144"));
}

}  // namespace
}  // namespace essor::model
