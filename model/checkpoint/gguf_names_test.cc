#include "model/checkpoint/gguf_names.h"

#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/gguf_bytes.h"
#include "nlohmann/json.hpp"

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

GgufBytes& PutFloat(GgufBytes& file, const std::string& key, float value) {
  return file.Key(key, GgufValueType::kFloat32).Put(value);
}

// The metadata of a small model, without head counts.
constexpr uint64_t kBaseKeys = 8;
void PutBase(GgufBytes& file, const std::string& architecture) {
  file.Key("general.architecture", GgufValueType::kString).Text(architecture);
  file.Uint(architecture + ".block_count", 2).Uint(architecture + ".context_length", 64);
  file.Uint(architecture + ".embedding_length", 32);
  file.Uint(architecture + ".feed_forward_length", 48);
  file.Uint(architecture + ".attention.head_count", 4);
  PutFloat(file, architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  file.Uint(architecture + ".vocab_size", 100);
}

absl::StatusOr<nlohmann::json> Config(const GgufBytes& file) {
  const ScratchDirectory directory;
  const auto opened = GgufFile::Open(directory.Write("m.gguf", file.bytes()));
  if (!opened.ok()) return opened.status();
  const auto config = GgufConfigToHf(**opened);
  if (!config.ok()) return config.status();
  return nlohmann::json::parse(*config);
}

TEST(GgufConfigTest, DenseLlama) {
  GgufBytes file;
  file.Header(1, kBaseKeys + 4);
  PutBase(file, "llama");
  file.Uint("llama.attention.head_count_kv", 2).Uint("tokenizer.ggml.bos_token_id", 1);
  file.Uint("tokenizer.ggml.eos_token_id", 2).Uint("tokenizer.ggml.eot_token_id", 3);
  file.Tensor("output.weight", {8}, 0, 0).Align().Zeros(32);
  const nlohmann::json config = Config(file).value();
  EXPECT_EQ(config["model_type"], "llama");
  EXPECT_EQ(config["architectures"][0], "LlamaForCausalLM");
  EXPECT_EQ(config["hidden_size"], 32);
  EXPECT_EQ(config["intermediate_size"], 48);
  EXPECT_EQ(config["num_hidden_layers"], 2);
  EXPECT_EQ(config["num_attention_heads"], 4);
  EXPECT_EQ(config["num_key_value_heads"], 2);
  EXPECT_EQ(config["head_dim"], 8);
  EXPECT_EQ(config["max_position_embeddings"], 64);
  EXPECT_EQ(config["vocab_size"], 100);
  EXPECT_EQ(config["rms_norm_eps"], 1e-5);  // not the float32 nearest to it
  EXPECT_EQ(config["rope_theta"], 10000.0);
  EXPECT_EQ(config["tie_word_embeddings"], false);
  EXPECT_EQ(config["bos_token_id"], 1);
  EXPECT_EQ(config["eos_token_id"], (nlohmann::json{2, 3}));
  EXPECT_TRUE(config["rope_scaling"].is_null());
}

TEST(GgufConfigTest, LlamaWithExpertsIsMixtral) {
  GgufBytes file;
  file.Header(0, kBaseKeys + 2);
  PutBase(file, "llama");
  file.Uint("llama.expert_count", 8).Uint("llama.expert_used_count", 2);
  const nlohmann::json config = Config(file).value();
  EXPECT_EQ(config["model_type"], "mixtral");
  EXPECT_EQ(config["num_local_experts"], 8);
  EXPECT_EQ(config["num_experts_per_tok"], 2);
  EXPECT_EQ(config["tie_word_embeddings"], true);
}

TEST(GgufConfigTest, Qwen3Moe) {
  GgufBytes file;
  file.Header(0, kBaseKeys + 5);
  PutBase(file, "qwen3moe");
  file.Uint("qwen3moe.expert_count", 16).Uint("qwen3moe.expert_used_count", 4);
  file.Uint("qwen3moe.expert_feed_forward_length", 24);
  file.Uint("qwen3moe.attention.key_length", 16);
  PutFloat(file, "qwen3moe.rope.freq_base", 1e6f);
  const nlohmann::json config = Config(file).value();
  EXPECT_EQ(config["model_type"], "qwen3_moe");
  EXPECT_EQ(config["num_experts"], 16);
  EXPECT_EQ(config["moe_intermediate_size"], 24);
  EXPECT_EQ(config["intermediate_size"], 48);
  EXPECT_EQ(config["head_dim"], 16);
  EXPECT_EQ(config["norm_topk_prob"], true);
  EXPECT_EQ(config["rope_theta"], 1e6);
}

// Llama 3.1's divisors for theta 10000 and 4 pairs: all wavelengths are short but the last.
TEST(GgufConfigTest, RopeDivisorsAreRecognisedAsLlama3Scaling) {
  const auto with_divisors = [](const std::vector<float>& divisors) {
    GgufBytes file;
    file.Header(1, kBaseKeys);
    PutBase(file, "llama");
    file.Tensor("rope_freqs.weight", {4}, 0, 0).Align();
    for (const float divisor : divisors) file.Put(divisor);
    return Config(file.Zeros(16));
  };
  // Wavelengths 2 pi 10^i: at i = 3, 6283 lies between 8192 / 4 and 8192.
  const double smooth = (8192.0 / (2.0 * std::numbers::pi * 1000.0) - 1.0) / 3.0;
  const auto scaled = [&](double factor) {
    return static_cast<float>(1.0 / ((1.0 - smooth) / factor + smooth));
  };
  // No frequency is divided by the full factor, so the largest divisor is not the factor.
  EXPECT_EQ(with_divisors({1.0f, 1.0f, 1.0f, scaled(8.0)}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with_divisors({2.0f, 1.0f, 1.0f, 1.0f}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const nlohmann::json config = with_divisors({1.0f, 1.0f, 1.0f, 1.0f}).value();
  EXPECT_EQ(config["rope_scaling"]["rope_type"], "llama3");
  EXPECT_EQ(config["rope_scaling"]["factor"], 1.0);
  EXPECT_EQ(config["rope_scaling"]["original_max_position_embeddings"], 8192);
}

TEST(GgufConfigTest, ProblemsNameTheKey) {
  const auto error = [](auto change) {
    GgufBytes file;
    file.Header(0, kBaseKeys + 1);
    PutBase(file, "llama");
    change(file);
    const absl::Status status = Config(file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error([](GgufBytes& f) { f.Uint("llama.expert_count", 4); }),
              HasSubstr("m.gguf: metadata key llama.expert_used_count is 0 of 4"));
  EXPECT_THAT(error([](GgufBytes& f) { f.Uint("llama.rope.dimension_count", 4); }),
              HasSubstr("rope.dimension_count is 4, but heads have 8 dimensions"));
  EXPECT_THAT(error([](GgufBytes& f) {
                f.Key("llama.rope.scaling.type", GgufValueType::kString).Text("odd");
              }),
              HasSubstr("metadata key llama.rope.scaling.type: unknown scaling odd"));
  EXPECT_THAT(error([](GgufBytes& f) { PutFloat(f, "llama.rope.freq_base", NAN); }),
              HasSubstr("metadata key llama.rope.freq_base must be a positive number"));
  EXPECT_THAT(error([](GgufBytes& f) { f.Uint("llama.attention.key_length", 7); }),
              HasSubstr("heads of 7 dimensions cannot be rotated"));

  GgufBytes unknown;
  unknown.Header(0, 1).Key("general.architecture", GgufValueType::kString).Text("gemma3");
  EXPECT_THAT(std::string(Config(unknown).status().message()),
              HasSubstr("general.architecture gemma3 is not supported (known: llama, qwen2"));
  GgufBytes empty;
  empty.Header(0, 0);
  const absl::Status missing = Config(empty).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.message()),
              HasSubstr("m.gguf: metadata key general.architecture is missing"));
}

}  // namespace
}  // namespace essor::model
