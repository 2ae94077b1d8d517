#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/logical_weights.h"
#include "model/spec/spec_test_support.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The language model of a published config, with a key set.
absl::StatusOr<ModelSpec> SpecWith(const std::string& key, const nlohmann::json& value) {
  nlohmann::json config = ReadConfig("configs/llama-4-maverick");
  config["text_config"][key] = value;
  return SpecOf(config);
}

TEST(Llama4Test, Scout) {
  const ModelSpec spec = LoadSpec("configs/llama-4-scout");
  EXPECT_EQ(spec.family, "llama4");
  EXPECT_EQ(spec.max_context_tokens, 10485760u);
  EXPECT_EQ(spec.norm_eps, 1e-5);
  EXPECT_THAT(spec.eos_tokens, ElementsAre(200001, 200007, 200008));
  ASSERT_EQ(spec.layers.size(), 48u);
  GroupedQueryAttention rotating{
      .num_heads = 40,
      .num_kv_heads = 8,
      .head_dim = 128,
      .qk_norm = QkNorm::kUnitAfterRope,
      .rope = {.theta = 500000,
               .rotary_dim = 128,
               .interleaved = true,
               .scaling = RopeSpec::Llama3Scaling{.factor = 16,
                                                  .low_freq_factor = 1,
                                                  .high_freq_factor = 1,
                                                  .original_max_position = 8192}},
      .chunk_size = 8192};
  rotating.softmax_scale = AttentionOf(spec, 0).softmax_scale;
  EXPECT_NEAR(rotating.softmax_scale, 0.0883883476, 1e-9);
  const GroupedQueryAttention still{
      .num_heads = 40,
      .num_kv_heads = 8,
      .head_dim = 128,
      .softmax_scale = rotating.softmax_scale,
      .temperature = GroupedQueryAttention::Temperature{.scale = 0.1, .floor_positions = 8192}};
  const MoeFfn moe{
      .num_experts = 16,
      .top_k = 1,
      .intermediate_size = 8192,
      .shared_intermediate_size = 8192,
      .router = {.score = RouterSpec::Score::kSigmoid, .renormalise = false, .weigh_input = true}};
  for (size_t layer = 0; layer < 48; ++layer) {
    EXPECT_EQ(AttentionOf(spec, layer), layer % 4 == 3 ? still : rotating) << layer;
    EXPECT_EQ(std::get<MoeFfn>(spec.layers[layer].ffn), moe) << layer;
  }
  // 109 G with the vision tower; 17 G active with the embedding, which is looked up.
  EXPECT_EQ(spec.NumParameters(), 107'769'861'120u);
  EXPECT_EQ(spec.NumActiveParameters(), 16'138'408'960u);
}

TEST(Llama4Test, Maverick) {
  const ModelSpec spec = LoadSpec("configs/llama-4-maverick");
  EXPECT_EQ(spec.max_context_tokens, 1048576u);
  ASSERT_EQ(spec.layers.size(), 48u);
  EXPECT_EQ(AttentionOf(spec, 0).qk_norm, QkNorm::kNone);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(AttentionOf(spec, 0).rope.scaling));
  EXPECT_EQ(AttentionOf(spec, 3).rope.rotary_dim, 0u);
  EXPECT_EQ(AttentionOf(spec, 3).chunk_size, 0u);
  EXPECT_EQ(AttentionOf(spec, 3).temperature->floor_positions, 8192);
  EXPECT_FALSE(AttentionOf(spec, 4).temperature.has_value());
  EXPECT_EQ(std::get<DenseFfn>(spec.layers[46].ffn).intermediate_size, 16384u);
  EXPECT_EQ(std::get<MoeFfn>(spec.layers[47].ffn).num_experts, 128u);
  EXPECT_EQ(spec.NumParameters(), 400'711'848'960u);
  EXPECT_EQ(spec.NumActiveParameters(), 16'150'205'440u);
}

// Which layers rotate, see their chunk and have experts is said by lists, or without them by
// intervals.
TEST(Llama4Test, ListsOfLayersWinOverIntervals) {
  nlohmann::json config = ReadConfig("configs/llama-4-maverick");
  nlohmann::json& text = config["text_config"];
  text["num_hidden_layers"] = 4;
  text["moe_layers"] = {0, 3};
  text["no_rope_layers"] = {0, 1, 1, 0};
  text["layer_types"] = {"full_attention", "chunked_attention", "full_attention",
                         "chunked_attention"};
  auto spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto flags = [&](const auto& is) {
    std::vector<int> of_layers;
    for (size_t layer = 0; layer < 4; ++layer) of_layers.push_back(is(layer) ? 1 : 0);
    return of_layers;
  };
  const auto has_experts = [&](size_t layer) {
    return std::holds_alternative<MoeFfn>(spec->layers[layer].ffn);
  };
  const auto rotates = [&](size_t layer) { return AttentionOf(*spec, layer).rope.rotary_dim > 0; };
  const auto chunked = [&](size_t layer) { return AttentionOf(*spec, layer).chunk_size == 8192; };
  EXPECT_THAT(flags(has_experts), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(flags(rotates), ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(flags(chunked), ElementsAre(0, 1, 0, 1));
  for (const char* key : {"moe_layers", "no_rope_layers", "layer_types"}) text.erase(key);
  text["no_rope_layer_interval"] = 3;
  text["attention_bias"] = true;
  spec = SpecOf(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(flags(has_experts), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(flags(rotates), ElementsAre(1, 1, 0, 1));
  EXPECT_THAT(flags(chunked), ElementsAre(1, 1, 0, 1));
  EXPECT_TRUE(AttentionOf(*spec, 2).qkv_bias && AttentionOf(*spec, 2).output_bias);
}

TEST(Llama4Test, TheTemperatureMayBeSwitchedOffByWordOrNumber) {
  for (const nlohmann::json& off : {nlohmann::json(false), nlohmann::json(0)}) {
    const auto spec = SpecWith("attn_temperature_tuning", off);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_FALSE(AttentionOf(*spec, 3).temperature.has_value());
  }
  for (const nlohmann::json& on : {nlohmann::json(true), nlohmann::json(4), nlohmann::json()}) {
    const auto spec = SpecWith("attn_temperature_tuning", on);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(AttentionOf(*spec, 3).temperature.has_value());
  }
}

TEST(Llama4Test, RefusesWithTheKeysName) {
  const struct {
    const char* key;
    nlohmann::json value;
    const char* message;
  } kCases[] = {
      {"no_rope_layers",
       {1, 0},
       "config.json: text_config.no_rope_layers: 2 entries for 48 layers"},
      {"layer_types", {"full_attention"}, "text_config.layer_types: 1 entries for 48 layers"},
      {"layer_types", std::vector<std::string>(48, "sliding_attention"),
       "layer type \"sliding_attention\" is not chunked_attention or full_attention"},
      {"attention_chunk_size", 0, "text_config.attention_chunk_size: 0 is outside"},
      {"floor_scale", 0, "text_config.floor_scale: 0 is not above 0"},
      {"attn_temperature_tuning", "on", "attn_temperature_tuning: expected true or false"},
      {"num_experts_per_tok", 129, "text_config.num_experts_per_tok: 129 exceeds"},
      {"intermediate_size_mlp", nullptr, "text_config.intermediate_size_mlp: missing"},
      {"model_type", "qwen3",
       "text_config.model_type: \"qwen3\" is not the language model of llama4"},
      {"model_type", "gemma3_text",
       "text_config.model_type: \"gemma3_text\" is not the language model of llama4"},
      {"hidden_act", "gelu", "text_config.hidden_act: activation \"gelu\""},
  };
  for (const auto& c : kCases) {
    const auto spec = SpecWith(c.key, c.value);
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << c.key;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr(c.message));
  }
  nlohmann::json config = ReadConfig("configs/llama-4-scout");
  config["quantization_config"] = {{"quant_method", "awq"}};
  EXPECT_THAT(std::string(SpecOf(config).status().message()),
              HasSubstr("\"awq\" checkpoints are not supported"));
  config.erase("quantization_config");
  config.erase("text_config");
  EXPECT_THAT(std::string(SpecOf(config).status().message()),
              HasSubstr("config.json: text_config: missing"));
}

// The language model's own config, alone in its file, is the same model under other names.
TEST(Llama4Test, TheTextModelAlone) {
  nlohmann::json config = ReadConfig("configs/llama-4-scout");
  const auto alone = SpecOf(config["text_config"]);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->family, "llama4_text");
  EXPECT_EQ(alone->layers, LoadSpec("configs/llama-4-scout").layers);
  EXPECT_EQ(TensorPrefix(*alone), "");
  EXPECT_FALSE(IsUnusedTensor(*alone, "vision_model.class_embedding"));
  // Some configs repeat the outer type inside, or none.
  config["text_config"]["model_type"] = "llama4";
  EXPECT_TRUE(SpecOf(config).ok());
  config["text_config"].erase("model_type");
  EXPECT_TRUE(SpecOf(config).ok());
}

const WeightBinding& Find(const std::vector<WeightBinding>& bindings, WeightRole role,
                          int32_t layer, int32_t expert = -1) {
  for (const WeightBinding& binding : bindings) {
    if (binding.role == role && binding.layer == layer && binding.expert == expert) return binding;
  }
  ADD_FAILURE() << "no such weight";
  return bindings.front();
}

TEST(Llama4BindingsTest, ExpertsAreStackedAndTransposedBelowThePrefix) {
  const ModelSpec spec = LoadSpec("configs/llama-4-maverick");
  const auto bindings = BindingsOf(spec, [](const std::string& name) {
    return name == "language_model.model.layers.1.feed_forward.experts.gate_up_proj";
  });
  EXPECT_EQ(bindings.front().tensor, "language_model.model.embed_tokens.weight");
  EXPECT_EQ(bindings.back().tensor, "language_model.lm_head.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kQuery, 0).tensor,
            "language_model.model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kUp, 0).tensor,
            "language_model.model.layers.0.feed_forward.up_proj.weight");
  const std::string ffn = "language_model.model.layers.1.feed_forward.";
  EXPECT_EQ(Find(bindings, WeightRole::kRouter, 1).tensor, ffn + "router.weight");
  EXPECT_EQ(Find(bindings, WeightRole::kDown, 1).tensor, ffn + "shared_expert.down_proj.weight");
  const WeightBinding& gate = Find(bindings, WeightRole::kGate, 1, 3);
  const WeightBinding& up = Find(bindings, WeightRole::kUp, 1, 3);
  const WeightBinding& down = Find(bindings, WeightRole::kDown, 1, 3);
  for (const WeightBinding* binding : {&gate, &up}) {
    EXPECT_EQ(binding->tensor, ffn + "experts.gate_up_proj");
    EXPECT_TRUE(binding->transposed);
    EXPECT_EQ(binding->first_row, 3u * 5120);
    EXPECT_EQ(binding->TensorRowElements(), 2u * 8192);
  }
  EXPECT_EQ(gate.first_col, 0u);
  EXPECT_EQ(up.first_col, 8192u);
  EXPECT_EQ(down.tensor, ffn + "experts.down_proj");
  EXPECT_TRUE(down.transposed);
  EXPECT_EQ(down.first_row, 3u * 8192);
  EXPECT_EQ(down.TensorRowElements(), 5120u);
  EXPECT_TRUE(IsUnusedTensor(spec, "vision_model.class_embedding"));
  EXPECT_TRUE(IsUnusedTensor(spec, "multi_modal_projector.linear_1.weight"));
  EXPECT_FALSE(IsUnusedTensor(spec, "language_model.vision_model.weight"));
  EXPECT_FALSE(IsDraftTensor(spec, "language_model.model.layers.48.eh_proj.weight"));

  const auto packed =
      BindingsOf(spec, [](const std::string& name) { return name.ends_with("weight_packed"); });
  EXPECT_EQ(Find(packed, WeightRole::kUp, 1, 3).tensor, ffn + "experts.3.up_proj.weight_packed");
  EXPECT_EQ(Find(packed, WeightRole::kUp, 1, 3).scales, ffn + "experts.3.up_proj.weight_scale");
}

}  // namespace
}  // namespace essor::model
