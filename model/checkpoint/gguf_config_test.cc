// GgufConfigToHf of gguf_names.h.

#include <cmath>
#include <functional>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/gguf_bytes.h"
#include "model/checkpoint/gguf_names.h"
#include "nlohmann/json.hpp"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

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
  file.Header(1, kBaseKeys + 5);
  PutBase(file, "llama");
  file.Uint("llama.attention.head_count_kv", 2).Uint("tokenizer.ggml.bos_token_id", 1);
  file.Uint("tokenizer.ggml.eos_token_id", 2).Uint("tokenizer.ggml.eot_token_id", 3);
  file.Uint("tokenizer.ggml.eom_token_id", 2);
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
  EXPECT_THAT(
      std::string(Config(unknown).status().message()),
      HasSubstr(
          "general.architecture gemma3 is not supported (known: deepseek2, deepseek32, ernie4_5, "
          "ernie4_5-moe, glm4, glm4moe, llama, llama4, minimax-m2, qwen2, qwen3, qwen3moe)"));
  GgufBytes empty;
  empty.Header(0, 0);
  const absl::Status missing = Config(empty).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.message()),
              HasSubstr("m.gguf: metadata key general.architecture is missing"));
}

// A file's metadata, whose number of keys is counted.
class Keys {
 public:
  explicit Keys(const std::string& architecture) : architecture_(architecture) {
    Text("general.architecture", architecture);
    Uint("block_count", 3).Uint("context_length", 64).Uint("embedding_length", 32);
    Uint("feed_forward_length", 48).Uint("attention.head_count", 4).Uint("vocab_size", 100);
    Real("attention.layer_norm_rms_epsilon", 1e-5f);
  }
  Keys& Uint(const std::string& key, uint32_t value) {
    entries_[architecture_ + "." + key] = [=](GgufBytes& file, const std::string& name) {
      file.Uint(name, value);
    };
    return *this;
  }
  Keys& Real(const std::string& key, float value) {
    entries_[architecture_ + "." + key] = [=](GgufBytes& file, const std::string& name) {
      PutFloat(file, name, value);
    };
    return *this;
  }
  Keys& Bool(const std::string& key, bool value) {
    entries_[architecture_ + "." + key] = [=](GgufBytes& file, const std::string& name) {
      file.Key(name, GgufValueType::kBool).Put(static_cast<uint8_t>(value));
    };
    return *this;
  }
  // A whole key.
  Keys& Text(const std::string& key, const std::string& value) {
    entries_[key] = [=](GgufBytes& file, const std::string& name) {
      file.Key(name, GgufValueType::kString).Text(value);
    };
    return *this;
  }
  Keys& Drop(const std::string& key) {
    entries_.erase(architecture_ + "." + key);
    return *this;
  }
  Keys& Tensor(const std::string& name) {
    tensors_.push_back(name);
    return *this;
  }

  absl::StatusOr<nlohmann::json> ToConfig() const {
    GgufBytes file;
    file.Header(tensors_.size(), entries_.size());
    for (const auto& [name, put] : entries_) put(file, name);
    for (size_t i = 0; i < tensors_.size(); ++i) file.Tensor(tensors_[i], {8}, 0, 32 * i);
    file.Align().Zeros(32 * tensors_.size());
    return Config(file);
  }
  std::string Error() const {
    const absl::Status status = ToConfig().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

 private:
  const std::string architecture_;
  std::map<std::string, std::function<void(GgufBytes&, const std::string&)>> entries_;
  std::vector<std::string> tensors_;
};

Keys Deepseek2(const std::string& architecture = "deepseek2") {
  Keys keys(architecture);
  keys.Uint("attention.head_count_kv", 1).Uint("attention.q_lora_rank", 24);
  keys.Uint("attention.kv_lora_rank", 16).Uint("rope.dimension_count", 8);
  keys.Uint("attention.key_length", 24).Uint("attention.value_length", 16);
  keys.Uint("attention.key_length_mla", 20).Uint("attention.value_length_mla", 10);
  keys.Uint("leading_dense_block_count", 1).Uint("expert_count", 8).Uint("expert_used_count", 3);
  keys.Uint("expert_group_count", 4).Uint("expert_group_used_count", 2);
  keys.Uint("expert_gating_func", 2).Uint("expert_feed_forward_length", 16);
  keys.Uint("expert_shared_count", 2).Real("expert_weights_scale", 2.827f);
  return keys.Bool("expert_weights_norm", true);
}

TEST(GgufConfigTest, Deepseek2) {
  const nlohmann::json config = Deepseek2().ToConfig().value();
  EXPECT_EQ(config["model_type"], "deepseek_v3");
  EXPECT_EQ(config["num_hidden_layers"], 3);
  EXPECT_EQ(config["num_nextn_predict_layers"], 0);
  EXPECT_EQ(config["q_lora_rank"], 24);
  EXPECT_EQ(config["kv_lora_rank"], 16);
  EXPECT_EQ(config["qk_rope_head_dim"], 8);
  EXPECT_EQ(config["qk_nope_head_dim"], 12);
  EXPECT_EQ(config["v_head_dim"], 10);
  EXPECT_EQ(config["first_k_dense_replace"], 1);
  EXPECT_EQ(config["n_routed_experts"], 8);
  EXPECT_EQ(config["num_experts_per_tok"], 3);
  EXPECT_EQ(config["n_shared_experts"], 2);
  EXPECT_EQ(config["moe_intermediate_size"], 16);
  EXPECT_EQ(config["n_group"], 4);
  EXPECT_EQ(config["topk_group"], 2);
  EXPECT_EQ(config["routed_scaling_factor"], 2.827);
  EXPECT_EQ(config["norm_topk_prob"], true);
  EXPECT_TRUE(config["rope_scaling"].is_null());
  // Writers leave false out, and the query's rank where there is none.
  Keys other = Deepseek2();
  other.Drop("expert_weights_norm").Drop("expert_weights_scale").Drop("attention.q_lora_rank");
  const nlohmann::json without = other.Uint("nextn_predict_layers", 1).ToConfig().value();
  EXPECT_EQ(without["norm_topk_prob"], false);
  EXPECT_EQ(without["routed_scaling_factor"], 1.0);
  EXPECT_TRUE(without["q_lora_rank"].is_null());
  EXPECT_EQ(without["num_hidden_layers"], 2);
  EXPECT_EQ(without["num_nextn_predict_layers"], 1);
}

TEST(GgufConfigTest, Deepseek2BeforeLatentKeys) {
  Keys keys = Deepseek2();
  keys.Drop("attention.key_length_mla").Drop("attention.value_length_mla");
  keys.Uint("attention.key_length", 20).Uint("attention.value_length", 10);
  const nlohmann::json config = keys.ToConfig().value();
  EXPECT_EQ(config["qk_nope_head_dim"], 12);
  EXPECT_EQ(config["v_head_dim"], 10);
}

Keys Deepseek2Yarn() {
  Keys keys = Deepseek2();
  keys.Text("deepseek2.rope.scaling.type", "yarn").Real("rope.scaling.factor", 40.0f);
  return keys.Uint("rope.scaling.original_context_length", 4096);
}

TEST(GgufConfigTest, Deepseek2YarnMagnitude) {
  const nlohmann::json plain = Deepseek2Yarn().ToConfig().value()["rope_scaling"];
  EXPECT_EQ(plain["factor"], 40.0);
  EXPECT_EQ(plain["beta_fast"], 32.0);
  EXPECT_EQ(plain["beta_slow"], 1.0);
  EXPECT_FALSE(plain.contains("mscale_all_dim"));
  Keys keys = Deepseek2Yarn();
  keys.Real("rope.scaling.yarn_log_multiplier", 0.0707f);
  keys.Real("rope.scaling.yarn_beta_fast", 16.0f).Real("rope.scaling.yarn_beta_slow", 2.0f);
  const nlohmann::json scaling = keys.ToConfig().value()["rope_scaling"];
  EXPECT_EQ(scaling["mscale"], 0.707);
  EXPECT_EQ(scaling["mscale_all_dim"], 0.707);
  EXPECT_EQ(scaling["beta_fast"], 16.0);
  EXPECT_EQ(scaling["beta_slow"], 2.0);
}

TEST(GgufConfigTest, Deepseek32HasAnIndexer) {
  Keys keys = Deepseek2("deepseek32");
  keys.Uint("attention.indexer.head_count", 6).Uint("attention.indexer.key_length", 16);
  keys.Uint("attention.indexer.top_k", 32).Uint("rope.scaling.original_context_length", 4096);
  keys.Text("deepseek32.rope.scaling.type", "yarn").Real("rope.scaling.factor", 40.0f);
  keys.Real("rope.scaling.yarn_log_multiplier", 0.0707f);
  const nlohmann::json config = keys.ToConfig().value();
  EXPECT_EQ(config["model_type"], "deepseek_v32");
  EXPECT_EQ(config["index_n_heads"], 6);
  EXPECT_EQ(config["index_head_dim"], 16);
  EXPECT_EQ(config["index_topk"], 32);
  EXPECT_EQ(config["n_routed_experts"], 8);
  EXPECT_EQ(config["rope_scaling"]["mscale"], 1.0);
  EXPECT_EQ(config["rope_scaling"]["mscale_all_dim"], 0.707);
  EXPECT_THAT(Keys(keys).Drop("attention.indexer.top_k").Error(),
              HasSubstr("deepseek32.attention.indexer.top_k is missing"));
}

TEST(GgufConfigTest, Deepseek2ProblemsNameTheKey) {
  for (const char* const key :
       {"attention.kv_lora_rank", "rope.dimension_count", "attention.value_length_mla",
        "attention.key_length_mla", "expert_shared_count", "expert_group_used_count"}) {
    EXPECT_THAT(Deepseek2().Drop(key).Error(),
                HasSubstr(std::string("metadata key deepseek2.") + key + " is missing"));
  }
  EXPECT_THAT(Deepseek2().Drop("expert_gating_func").Error(),
              HasSubstr("deepseek2.expert_gating_func is missing, which means DeepSeek V2's "
                        "softmax router: not supported"));
  EXPECT_THAT(Deepseek2().Uint("expert_gating_func", 1).Error(),
              HasSubstr("expert_gating_func is 1, but only 2 (sigmoid) is supported"));
  EXPECT_THAT(Deepseek2().Drop("expert_group_count").Error(),
              HasSubstr("expert_group_count is missing: the file does not say in which groups"));
  EXPECT_THAT(Deepseek2().Uint("attention.key_length_mla", 8).Error(),
              HasSubstr("key_length_mla is 8, of which 8 rotate"));
  EXPECT_THAT(Deepseek2().Uint("nextn_predict_layers", 3).Error(),
              HasSubstr("nextn_predict_layers is 3 of 3 layers in all"));
  EXPECT_THAT(Deepseek2().Real("attention.temperature_scale", 0.1f).Error(),
              HasSubstr("metadata key deepseek2.attention.temperature_scale is not understood"));
  EXPECT_THAT(Deepseek2Yarn().Real("rope.scaling.yarn_log_multiplier", 3e38f).Error(),
              HasSubstr("rope.scaling.yarn_log_multiplier is 3e+38"));
  EXPECT_THAT(Keys("qwen3").Uint("attention.key_length", 0xFFFFFFFE).Error(),
              HasSubstr("attention.key_length is 4294967294; the limit is 1048576"));
  EXPECT_THAT(Deepseek2Yarn().Real("rope.scaling.yarn_attn_factor", 2.0f).Error(),
              HasSubstr("rope.scaling.yarn_attn_factor is not understood"));
}

Keys Glm4Moe() {
  Keys keys("glm4moe");
  keys.Uint("attention.head_count_kv", 2).Uint("attention.key_length", 16);
  keys.Uint("attention.value_length", 16).Uint("rope.dimension_count", 8);
  keys.Uint("nextn_predict_layers", 1).Uint("leading_dense_block_count", 1);
  keys.Uint("expert_count", 8).Uint("expert_used_count", 2).Uint("expert_shared_count", 1);
  return keys.Uint("expert_feed_forward_length", 16).Bool("expert_weights_norm", true);
}

TEST(GgufConfigTest, Glm4Moe) {
  const nlohmann::json config =
      Glm4Moe().Tensor("blk.0.attn_q.bias").Tensor("output.weight").ToConfig().value();
  EXPECT_EQ(config["model_type"], "glm4_moe");
  EXPECT_EQ(config["num_hidden_layers"], 2);
  EXPECT_EQ(config["partial_rotary_factor"], 0.5);
  EXPECT_EQ(config["attention_bias"], true);
  EXPECT_EQ(config["use_qk_norm"], false);
  EXPECT_EQ(config["n_group"], 1);
  EXPECT_EQ(config["topk_group"], 1);
  EXPECT_EQ(config["tie_word_embeddings"], false);
  EXPECT_EQ(Glm4Moe().Tensor("blk.0.attn_q_norm.weight").ToConfig().value()["use_qk_norm"], true);

  EXPECT_THAT(Glm4Moe().Uint("rope.dimension_count", 24).Error(),
              HasSubstr("rope.dimension_count is 24, but heads have 16 dimensions"));
  EXPECT_THAT(Glm4Moe().Uint("attention.value_length", 8).Error(),
              HasSubstr("attention.value_length is 8, but keys have 16 dimensions"));
  EXPECT_THAT(Glm4Moe().Uint("expert_gating_func", 4).Error(),
              HasSubstr("glm4moe.expert_gating_func is 4"));
  EXPECT_THAT(Glm4Moe().Uint("rope.dimension_sections", 8).Error(),
              HasSubstr("glm4moe.rope.dimension_sections is not understood"));
}

TEST(GgufConfigTest, Glm4) {
  Keys keys("glm4");
  const nlohmann::json config = keys.Uint("rope.dimension_count", 4).ToConfig().value();
  EXPECT_EQ(config["model_type"], "glm4");
  EXPECT_EQ(config["intermediate_size"], 48);
  EXPECT_EQ(config["head_dim"], 8);
  EXPECT_EQ(config["partial_rotary_factor"], 0.5);
  EXPECT_EQ(config["attention_bias"], false);
}

TEST(GgufConfigTest, ErnieMoe) {
  Keys keys("ernie4_5-moe");
  keys.Uint("attention.head_count_kv", 2).Uint("expert_count", 8).Uint("expert_used_count", 3);
  keys.Uint("interleave_moe_layer_step", 1).Uint("leading_dense_block_count", 1);
  keys.Uint("expert_feed_forward_length", 16).Uint("expert_shared_count", 2);
  keys.Uint("expert_shared_feed_forward_length", 24);
  const nlohmann::json config = keys.ToConfig().value();
  EXPECT_EQ(config["model_type"], "ernie4_5_moe");
  EXPECT_EQ(config["moe_num_experts"], 8);
  EXPECT_EQ(config["moe_k"], 3);
  EXPECT_EQ(config["moe_intermediate_size"], 16);
  EXPECT_EQ(config["moe_num_shared_experts"], 2);
  EXPECT_EQ(config["moe_layer_start_index"], 1);
  EXPECT_EQ(config["moe_layer_end_index"], 2);
  EXPECT_EQ(config["moe_layer_interval"], 1);

  EXPECT_THAT(Keys(keys).Uint("expert_gating_func", 2).Error(),
              HasSubstr("expert_gating_func is 2, but only 1 (softmax) is supported"));
  EXPECT_THAT(Keys(keys).Drop("interleave_moe_layer_step").Error(),
              HasSubstr("ernie4_5-moe.interleave_moe_layer_step is missing"));
  EXPECT_THAT(Keys(keys).Uint("rope.dimension_count", 4).Error(),
              HasSubstr("partial rotation is not supported"));
}

TEST(GgufConfigTest, MiniMaxM2) {
  Keys keys("minimax-m2");
  keys.Uint("attention.key_length", 16).Uint("rope.dimension_count", 8);
  keys.Uint("expert_count", 8).Uint("expert_used_count", 2).Uint("expert_gating_func", 2);
  keys.Uint("feed_forward_length", 16).Uint("expert_feed_forward_length", 16);
  keys.Tensor("blk.0.exp_probs_b.bias").Tensor("blk.0.attn_q_norm.weight");
  const nlohmann::json config = keys.ToConfig().value();
  EXPECT_EQ(config["model_type"], "minimax_m2");
  EXPECT_EQ(config["num_local_experts"], 8);
  EXPECT_EQ(config["intermediate_size"], 16);
  EXPECT_EQ(config["partial_rotary_factor"], 0.5);
  EXPECT_EQ(config["use_qk_norm"], true);
  EXPECT_EQ(config["use_routing_bias"], true);
  EXPECT_EQ(config["num_mtp_modules"], 0);
  EXPECT_THAT(Keys(keys).Drop("expert_gating_func").Error(),
              HasSubstr("minimax-m2.expert_gating_func is missing"));
}

TEST(GgufConfigTest, Llama4) {
  Keys keys("llama4");
  keys.Uint("attention.head_count_kv", 2).Uint("expert_count", 16).Uint("expert_used_count", 1);
  keys.Uint("expert_feed_forward_length", 16).Uint("interleave_moe_layer_step", 2);
  const nlohmann::json config = keys.ToConfig().value();
  EXPECT_EQ(config["model_type"], "llama4_text");
  EXPECT_EQ(config["intermediate_size"], 16);
  EXPECT_EQ(config["intermediate_size_mlp"], 48);
  EXPECT_EQ(config["interleave_moe_layer_step"], 2);
  EXPECT_EQ(config["attention_chunk_size"], 8192);
  EXPECT_EQ(config["no_rope_layer_interval"], 4);
  EXPECT_EQ(config["floor_scale"], 8192);
  EXPECT_EQ(config["attn_scale"], 0.1);
  EXPECT_EQ(config["use_qk_norm"], true);
  EXPECT_EQ(Keys(keys).Uint("expert_count", 128).ToConfig().value()["use_qk_norm"], false);
  EXPECT_THAT(Keys(keys).Uint("attention.sliding_window", 0).Error(),
              HasSubstr("attention.sliding_window is 0, but Llama 4's chunks have 8192"));
  EXPECT_THAT(Keys(keys).Drop("interleave_moe_layer_step").Error(),
              HasSubstr("llama4.interleave_moe_layer_step is missing"));
}

}  // namespace
}  // namespace essor::model
