#include "model/source/model_source.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/checkpoint/gguf_names.h"
#include "model/spec/families.h"
#include "nlohmann/json.hpp"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string NanoPath(const std::string& name) {
  return absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", name);
}

// A copy of a nano model that may be changed.
class ModelCopy {
 public:
  explicit ModelCopy(const std::string& name) {
    std::filesystem::copy(NanoPath(name), directory_.path());
  }

  nlohmann::json Read(const std::string& file) const {
    return nlohmann::json::parse(ReadFile(directory_ / file));
  }
  void Write(const std::string& file, const nlohmann::json& json) const {
    directory_.Write(file, json.dump());
  }
  void WriteText(const std::string& file, const std::string& text) const {
    directory_.Write(file, text);
  }
  void SetConfig(const std::string& key, const nlohmann::json& value) const {
    nlohmann::json config = Read("config.json");
    config[key] = value;
    Write("config.json", config);
  }
  void Remove(const std::string& file) const { std::filesystem::remove(directory_ / file); }
  std::string path() const { return directory_.path(); }

 private:
  ScratchDirectory directory_;
};

std::string ErrorOf(const std::string& path,
                    absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const auto source = ModelSource::Open(path);
  EXPECT_EQ(source.status().code(), code) << source.status();
  return std::string(source.status().message());
}

std::string Render(const ChatTemplate& chat_template) {
  const auto text = chat_template.Render({.messages_json = R"([{"role": "user", "content": "x"}])",
                                          .tools_json = {},
                                          .add_generation_prompt = false,
                                          .kwargs_json = {}});
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

// Layers after the last one are for guessing ahead.
TEST(ModelSourceTest, IgnoresDraftLayers) {
  const ModelCopy copy("deepseek_v3_dense");
  copy.SetConfig("num_hidden_layers", 2);
  copy.SetConfig("num_nextn_predict_layers", 1);
  const auto source = ModelSource::Open(copy.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->spec.layers.size(), 2u);
  // More layers than the config knows of: half a model would answer, and wrongly.
  copy.SetConfig("num_nextn_predict_layers", 0);
  EXPECT_THAT(ErrorOf(copy.path()), HasSubstr("has no place for it"));
}

// Of a checkpoint for images and text the text model is opened, and nothing else in it is unknown.
TEST(ModelSourceTest, OpensTheLanguageModelOfAMultimodalCheckpoint) {
  const ModelCopy copy("llama4_multimodal");
  const auto source = ModelSource::Open(copy.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->spec.family, "llama4");
  EXPECT_TRUE((*source)->checkpoint->Contains("vision_model.class_embedding"));
  nlohmann::json config = copy.Read("config.json");
  config["text_config"]["num_hidden_layers"] = 3;
  copy.Write("config.json", config);
  EXPECT_THAT(ErrorOf(copy.path()),
              HasSubstr("tensor language_model.model.layers.3.feed_forward.experts.down_proj: the "
                        "model that "));
  config["text_config"]["num_hidden_layers"] = 4;
  config["text_config"]["intermediate_size"] = 24;
  copy.Write("config.json", config);
  EXPECT_THAT(ErrorOf(copy.path()),
              ::testing::AllOf(HasSubstr("experts.down_proj: its shape is [4, 16, 32], but "),
                               HasSubstr("asks for [96, 32]")));
  // As a text model its tensors have other names.
  copy.Write("config.json", config["text_config"]);
  EXPECT_THAT(ErrorOf(copy.path()), HasSubstr("asks for a tensor that is missing: "));
}

// Python writes whole numbers of any size: int(1e30) is "no limit" in published files.
TEST(ModelSourceTest, FilesMayHoldNumbersBeyond64Bits) {
  const ModelCopy copy("llama");
  ASSERT_TRUE(ModelSource::Open(copy.path()).ok());
  for (const char* file : {"tokenizer_config.json", "config.json"}) {
    std::string text = copy.Read(file).dump();
    text.insert(1, R"("model_max_length": 1000000000000000019884624838656, "unused": NaN, )");
    copy.WriteText(file, text);
    const auto source = ModelSource::Open(copy.path());
    EXPECT_TRUE(source.ok()) << file << ": " << source.status();
  }
}

TEST(ModelSourceTest, TheTypeMayBeNamedInsideTheTextConfig) {
  const ModelCopy copy("llama4_multimodal");
  EXPECT_EQ(OpenStoredType(copy.path()).value(), DType::kF32);
  nlohmann::json config = copy.Read("config.json");
  config.erase("torch_dtype");
  config["text_config"]["dtype"] = "float16";
  copy.Write("config.json", config);
  EXPECT_EQ(OpenStoredType(copy.path()).value(), DType::kF16);
}

TEST(ModelSourceTest, OpensEveryFamily) {
  for (const char* name :
       {"llama", "llama_tied", "qwen2", "qwen3", "qwen3_moe", "qwen3_moe_mixed", "mixtral",
        "deepseek_v3_dense", "moonlight_dense", "ernie4_5", "ernie4_5_moe", "glm4_moe",
        "deepseek_v3", "llama4", "llama4_multimodal", "gpt_oss"}) {
    SCOPED_TRACE(name);
    const auto opened = ModelSource::Open(NanoPath(name) + "/");
    ASSERT_TRUE(opened.ok()) << opened.status();
    const ModelSource& source = **opened;
    EXPECT_EQ(source.name, name);
    EXPECT_EQ(source.stored, DType::kF32);
    EXPECT_THAT(source.spec.eos_tokens, ElementsAre(286));
    EXPECT_EQ(source.fingerprint.size(), 16u);
    ASSERT_NE(source.tokenizer, nullptr);
    EXPECT_LE(source.tokenizer->vocab_size(), source.spec.vocab_size);
    ASSERT_NE(source.chat_template, nullptr);
    uint64_t elements = 0;
    for (const WeightBinding& binding : source.bindings) {
      elements += binding.rows * binding.cols;
      EXPECT_EQ(binding.stored, DType::kF32);
      EXPECT_TRUE(source.checkpoint->Contains(binding.tensor)) << binding.tensor;
    }
    EXPECT_EQ(elements, source.spec.NumParameters());
  }
}

TEST(ModelSourceTest, FingerprintTellsModelsApart) {
  const ModelCopy copy("qwen3");
  const std::string original = (*ModelSource::Open(NanoPath("qwen3")))->fingerprint;
  EXPECT_EQ((*ModelSource::Open(NanoPath("qwen3")))->fingerprint, original);
  EXPECT_NE((*ModelSource::Open(NanoPath("llama")))->fingerprint, original);
  copy.SetConfig("rms_norm_eps", 0.02);
  EXPECT_NE((*ModelSource::Open(copy.path()))->fingerprint, original);
}

TEST(ModelSourceTest, GenerationConfigOverridesEndTokens) {
  const ModelCopy copy("llama");
  copy.Write("generation_config.json",
             {{"eos_token_id", {7, 286}}, {"temperature", 0.6}, {"top_p", 0.9}, {"top_k", 20}});
  auto source = ModelSource::Open(copy.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->spec.eos_tokens, ElementsAre(7, 286));
  EXPECT_EQ((*source)->generation.temperature, 0.6);
  EXPECT_EQ((*source)->generation.top_p, 0.9);
  EXPECT_EQ((*source)->generation.top_k, 20);

  copy.Write("generation_config.json", {{"eos_token_id", 9}});
  source = ModelSource::Open(copy.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->spec.eos_tokens, ElementsAre(9));
  EXPECT_FALSE((*source)->generation.top_k.has_value());

  // Without an end token of its own the config's stay.
  copy.Write("generation_config.json", {{"temperature", 1}});
  EXPECT_THAT((*ModelSource::Open(copy.path()))->spec.eos_tokens, ElementsAre(286));

  copy.Write("generation_config.json", {{"eos_token_id", 288}});
  EXPECT_THAT(ErrorOf(copy.path()),
              HasSubstr("generation_config.json: eos_token_id: 288 is outside the vocabulary"));
  copy.Write("generation_config.json", {{"top_k", -1}});
  EXPECT_THAT(ErrorOf(copy.path()), HasSubstr("generation_config.json: top_k: out of range"));
}

TEST(ModelSourceTest, ChatTemplateFileWinsOverTheConfig) {
  const ModelCopy copy("llama");
  copy.WriteText("chat_template.jinja", "from the file");
  EXPECT_THAT(Render(*(*ModelSource::Open(copy.path()))->chat_template),
              HasSubstr("from the file"));
}

TEST(ModelSourceTest, NamedTemplates) {
  const ModelCopy copy("llama");
  nlohmann::json config = copy.Read("tokenizer_config.json");
  config["chat_template"] = {{{"name", "tool_use"}, {"template", "tools"}},
                             {{"name", "default"}, {"template", "plain"}}};
  copy.Write("tokenizer_config.json", config);
  EXPECT_THAT(Render(*(*ModelSource::Open(copy.path()))->chat_template), HasSubstr("plain"));
  config["chat_template"] = {{{"name", "tool_use"}, {"template", "tools"}}};
  copy.Write("tokenizer_config.json", config);
  EXPECT_EQ((*ModelSource::Open(copy.path()))->chat_template, nullptr);
  config["chat_template"] = 5;
  copy.Write("tokenizer_config.json", config);
  EXPECT_THAT(ErrorOf(copy.path()),
              HasSubstr("tokenizer_config.json: chat_template: expected a string"));
}

TEST(ModelSourceTest, DeepSeekV32HasAnEncoderInsteadOfATemplate) {
  const ModelCopy copy("llama");
  copy.Remove("tokenizer_config.json");
  EXPECT_EQ((*OpenTextFiles(copy.path())).chat_template, nullptr);
  copy.SetConfig("model_type", "deepseek_v32");
  const auto files = OpenTextFiles(copy.path());
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_NE(files->chat_template, nullptr);
  EXPECT_THAT(Render(*files->chat_template), HasSubstr("<｜User｜>x<｜Assistant｜></think>"));
  // A template that somebody put there counts more.
  copy.WriteText("chat_template.jinja", "from the file");
  EXPECT_THAT(Render(*(*OpenTextFiles(copy.path())).chat_template), HasSubstr("from the file"));
}

// Special tokens as objects, and from the older file of their own.
TEST(ModelSourceTest, TemplatesSeeSpecialTokens) {
  const ModelCopy copy("llama");
  nlohmann::json config = copy.Read("tokenizer_config.json");
  config["chat_template"] = "{{ eos_token }}";
  config["eos_token"] = {{"content", "<|end|>"}, {"special", true}};
  copy.Write("tokenizer_config.json", config);
  EXPECT_THAT(Render(*(*ModelSource::Open(copy.path()))->chat_template), EndsWith("<|end|>"));
  config.erase("eos_token");
  copy.Write("tokenizer_config.json", config);
  copy.Write("special_tokens_map.json", {{"eos_token", "</s>"}});
  EXPECT_THAT(Render(*(*ModelSource::Open(copy.path()))->chat_template), EndsWith("</s>"));
}

TEST(ModelSourceTest, ModelsWithoutTextFilesStillOpen) {
  const ModelCopy copy("llama");
  copy.Remove("tokenizer.json");
  copy.Remove("tokenizer_config.json");
  const auto source = ModelSource::Open(copy.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->tokenizer, nullptr);
  EXPECT_EQ((*source)->chat_template, nullptr);
  const auto files = OpenTextFiles(copy.path());
  EXPECT_EQ(files.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(files.status().message()),
            copy.path() + ": no tokenizer.json, tiktoken.model or tokenizer.model");
}

std::string SmallTokenizer(const std::string& file) {
  return std::string(ESSOR_SOURCE_DIR) + "/tests/data/tokenizer/" + file;
}

TEST(ModelSourceTest, TheTokenizerIsReadFromTheFileThatIsThere) {
  const ModelCopy copy("llama");
  copy.Remove("tokenizer.json");
  copy.Remove("tokenizer_config.json");
  const auto copy_in = [&](const std::string& from, const char* name) {
    std::filesystem::copy_file(SmallTokenizer(from), copy.path() + "/" + name,
                               std::filesystem::copy_options::overwrite_existing);
  };
  copy_in("spm_bpe/tokenizer.model", "tokenizer.model");
  const auto pieces = OpenTextFiles(copy.path());
  ASSERT_TRUE(pieces.ok()) << pieces.status();
  EXPECT_TRUE(pieces->tokenizer->IdOf("<ud>").ok());
  EXPECT_FALSE(pieces->tokenizer->IdOf("[BOS]").ok());

  copy_in("kimi/tiktoken.model", "tiktoken.model");
  copy_in("kimi/tokenizer_config.json", "tokenizer_config.json");
  const auto ranks = OpenTextFiles(copy.path());
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_TRUE(ranks->tokenizer->IdOf("[BOS]").ok());

  copy_in("small_gpt2.json", "tokenizer.json");
  const auto json = OpenTextFiles(copy.path());
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_FALSE(json->tokenizer->IdOf("[BOS]").ok());
}

TEST(ModelSourceTest, NamesTheTokenizerFileThatIsWrong) {
  const ModelCopy copy("llama");
  copy.Remove("tokenizer.json");
  copy.Write("tokenizer.model", "text");
  EXPECT_THAT(std::string(OpenTextFiles(copy.path()).status().message()),
              HasSubstr(copy.path() + ": tokenizer.model: "));
  copy.Write("tiktoken.model", 1);
  EXPECT_THAT(std::string(OpenTextFiles(copy.path()).status().message()),
              HasSubstr(copy.path() + ": tiktoken.model: line 1"));
  copy.Write("tokenizer_config.json", {{"added_tokens_decoder", 1}});
  EXPECT_THAT(std::string(OpenTextFiles(copy.path()).status().message()),
              HasSubstr(copy.path() + ": tokenizer_config.json: added_tokens_decoder"));
}

TEST(ModelSourceTest, TextFilesNeedNoModel) {
  const ModelCopy copy("llama");
  copy.Remove("config.json");
  copy.Remove("model.safetensors");
  const auto files = OpenTextFiles(copy.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_NE(files->tokenizer, nullptr);
  EXPECT_NE(files->chat_template, nullptr);
}

TEST(ModelSourceTest, SpecNeedsNoWeights) {
  const ModelCopy copy("mixtral");
  for (const auto& entry : std::filesystem::directory_iterator(copy.path())) {
    if (entry.path().filename() != "config.json") std::filesystem::remove(entry.path());
  }
  for (const std::string& path : {copy.path(), copy.path() + "/config.json"}) {
    const auto spec = OpenSpec(path);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->family, "mixtral");
    EXPECT_EQ(OpenStoredType(path).value(), DType::kF32);
  }
  copy.SetConfig("torch_dtype", "int4");
  EXPECT_THAT(std::string(OpenStoredType(copy.path()).status().message()),
              HasSubstr("torch_dtype: \"int4\" is not one of bfloat16, float16, float32"));
}

TEST(ModelSourceTest, MissingPathsAndFiles) {
  EXPECT_EQ(ErrorOf("/nonexistent/model", absl::StatusCode::kNotFound),
            "/nonexistent/model: no such file or directory");
  EXPECT_THAT(ErrorOf(NanoPath("llama/config.json")),
              EndsWith("config.json: a model is a Hugging Face directory or a .gguf file"));
  const ModelCopy copy("llama");
  copy.Remove("model.safetensors");
  EXPECT_THAT(ErrorOf(copy.path(), absl::StatusCode::kNotFound), HasSubstr(copy.path()));
  copy.Remove("config.json");
  EXPECT_THAT(ErrorOf(copy.path(), absl::StatusCode::kNotFound), HasSubstr("config.json"));
}

TEST(ModelSourceTest, UnknownFamily) {
  const ModelCopy copy("llama");
  copy.SetConfig("model_type", "mamba");
  EXPECT_THAT(ErrorOf(copy.path()),
              EndsWith("config.json: model_type: unknown family \"mamba\"; known: " +
                       absl::StrJoin(KnownFamilies(), ", ")));
}

// A config that contradicts its tensors: both are named.
TEST(ModelSourceTest, ContradictionsNameBothSides) {
  {
    const ModelCopy copy("llama");
    copy.SetConfig("intermediate_size", 96);
    const std::string message = ErrorOf(copy.path());
    EXPECT_THAT(message, HasSubstr("model.safetensors: tensor model.layers.0.mlp.down_proj.weight: "
                                   "its shape is [64, 64], but "));
    EXPECT_THAT(message, EndsWith("config.json asks for [64, 96]"));
  }
  {
    const ModelCopy copy("llama");
    copy.SetConfig("num_hidden_layers", 3);
    const std::string message = ErrorOf(copy.path());
    EXPECT_THAT(message, HasSubstr("config.json asks for a tensor that is missing: "));
    EXPECT_THAT(message, HasSubstr("model.layers.2.input_layernorm.weight"));
  }
  {
    const ModelCopy copy("llama");
    copy.SetConfig("num_hidden_layers", 1);
    EXPECT_THAT(ErrorOf(copy.path()),
                HasSubstr("tensor model.layers.1.input_layernorm.weight: the model that "));
  }
  {
    const ModelCopy copy("llama_tied");
    copy.SetConfig("tie_word_embeddings", false);
    EXPECT_THAT(ErrorOf(copy.path()), HasSubstr("lm_head.weight"));
  }
  {
    // Biases that the config does not mention would be left out silently.
    const ModelCopy copy("qwen2");
    copy.SetConfig("model_type", "llama");
    EXPECT_THAT(ErrorOf(copy.path()),
                HasSubstr("tensor model.layers.0.self_attn.k_proj.bias: the model that "));
  }
}

// One tensor of a checkpoint to be written.
struct Written {
  TensorDeclaration declaration;
  std::vector<std::byte> data;
};

void WriteSafetensors(const std::string& directory, const std::vector<Written>& tensors) {
  std::vector<TensorDeclaration> declarations;
  for (const Written& tensor : tensors) declarations.push_back(tensor.declaration);
  auto writer = CreateSafetensorsWriter(directory, declarations, uint64_t{1} << 40);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const Written& tensor : tensors) ASSERT_TRUE((*writer)->Append(tensor.data).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
}

std::vector<float> ValuesOf(const ModelSource& source, WeightRole role, int32_t layer,
                            int32_t expert) {
  for (const WeightBinding& binding : source.bindings) {
    if (binding.role != role || binding.layer != layer || binding.expert != expert) continue;
    std::vector<float> values(binding.rows * binding.cols);
    const auto tensor = source.checkpoint->Find(binding.tensor);
    EXPECT_TRUE(tensor.ok());
    EXPECT_TRUE(DecodeToFloat(*tensor, binding.first_row * binding.cols, std::span(values)).ok());
    return values;
  }
  ADD_FAILURE() << "no such weight";
  return {};
}

// All tensors of a nano model, to be written again with changes.
std::vector<Written> TensorsOf(const std::string& model) {
  const auto checkpoint = OpenSafetensors(NanoPath(model));
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<Written> tensors;
  for (const std::string& name : (*checkpoint)->TensorNames()) {
    const TensorView view = (*checkpoint)->Find(name).value();
    tensors.push_back({{.name = name, .dtype = view.dtype, .shape = view.shape},
                       {view.data.begin(), view.data.end()}});
  }
  return tensors;
}

std::vector<Written> Fp8Tensors() { return TensorsOf("qwen3_moe_fp8_blocks"); }

constexpr char kFp8Scales[] = "model.layers.0.self_attn.q_proj.weight_scale_inv";

std::string ErrorWith(const std::string& name, const std::vector<Written>& tensors) {
  const ModelCopy copy(name);
  copy.Remove("model.safetensors");
  WriteSafetensors(copy.path(), tensors);
  return ErrorOf(copy.path());
}

std::string Fp8ErrorWith(const std::vector<Written>& tensors) {
  return ErrorWith("qwen3_moe_fp8_blocks", tensors);
}

TEST(ModelSourceTest, Fp8TensorsHaveTheirScalesBesideThem) {
  const auto source = ModelSource::Open(NanoPath("qwen3_moe_fp8_blocks"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->stored, DType::kF8E4M3);
  EXPECT_EQ(OpenStoredType(NanoPath("qwen3_moe_fp8_blocks")).value(), DType::kF8E4M3);
  uint64_t fp8 = 0;
  for (const WeightBinding& binding : (*source)->bindings) {
    const bool projection = binding.tensor.ends_with("proj.weight");
    EXPECT_EQ(*binding.stored, projection ? DType::kF8E4M3 : DType::kBF16) << binding.tensor;
    EXPECT_EQ(binding.scales, projection ? binding.tensor + "_scale_inv" : "");
    fp8 += projection ? 1 : 0;
  }
  EXPECT_EQ(fp8, 2u * (4 + 4 * 3));
}

TEST(ModelSourceTest, Fp8TensorsWithoutFittingScalesAreRefused) {
  {
    std::vector<Written> tensors = Fp8Tensors();
    std::erase_if(tensors,
                  [](const Written& tensor) { return tensor.declaration.name == kFp8Scales; });
    EXPECT_THAT(Fp8ErrorWith(tensors),
                HasSubstr("model.safetensors: tensor model.layers.0.self_attn.q_proj.weight: is "
                          "f8_e4m3, but its scales are missing: "));
  }
  {
    // Blocks of 64 x 64.
    std::vector<Written> tensors = Fp8Tensors();
    for (Written& tensor : tensors) {
      if (tensor.declaration.name != kFp8Scales) continue;
      tensor.declaration.shape = {4, 3};
      tensor.data.resize(4 * 3 * sizeof(float));
    }
    EXPECT_THAT(
        Fp8ErrorWith(tensors),
        HasSubstr("q_proj.weight_scale_inv: its shape is [4, 3], but blocks of 128 x 128 of "
                  "model.layers.0.self_attn.q_proj.weight [240, 192] have scales [2, 2]"));
  }
  {
    // Scales of a weight that needs none would change it, were they read.
    std::vector<Written> tensors = Fp8Tensors();
    tensors.push_back(
        {{.name = "lm_head.weight_scale_inv", .shape = {1}}, std::vector<std::byte>(4)});
    EXPECT_THAT(Fp8ErrorWith(tensors),
                HasSubstr("tensor lm_head.weight_scale_inv: the model that "));
  }
}

TEST(ModelSourceTest, FourBitExpertsSayHowTheirColumnsMayBeCut) {
  const struct {
    const char* name;
    DType stored;
  } kCases[] = {{"gpt_oss_mxfp4", DType::kF4E2M1}, {"kimi_k2_int4", DType::kOffsetI4}};
  for (const auto& test : kCases) {
    const auto source = ModelSource::Open(NanoPath(test.name));
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->stored, test.stored);
    EXPECT_EQ(OpenStoredType(NanoPath(test.name)).value(), test.stored);
    for (const WeightBinding& binding : (*source)->bindings) {
      const bool expert = binding.expert >= 0 && !IsVector(binding.role);
      EXPECT_EQ(*binding.stored, expert ? test.stored : DType::kBF16) << binding.tensor;
    }
  }
}

// `change` edits the tensor of that name or answers false, whereupon it is left out.
std::string ErrorWithout(const std::string& model, const std::string& name,
                         const std::function<bool(Written&)>& change) {
  std::vector<Written> tensors = TensorsOf(model);
  std::erase_if(
      tensors, [&](Written& tensor) { return tensor.declaration.name == name && !change(tensor); });
  return ErrorWith(model, tensors);
}

TEST(ModelSourceTest, FourBitTensorsWithoutFittingCompanionsAreRefused) {
  const auto leave_out = [](Written&) { return false; };
  const std::string blocks = "model.layers.1.mlp.experts.down_proj_blocks";
  const std::string scales = "model.layers.1.mlp.experts.down_proj_scales";
  EXPECT_THAT(ErrorWithout("gpt_oss_mxfp4", scales, leave_out),
              HasSubstr("tensor " + blocks + ": is f4_e2m1, but its scales are missing: "));
  EXPECT_THAT(ErrorWithout("gpt_oss_mxfp4", scales,
                           [](Written& tensor) {
                             tensor.declaration.shape = {8, 192 * 5};
                             return true;
                           }),
              HasSubstr("tensor " + scales + ": its shape is [8, 960], but groups of 32 columns"));
  // Without the blocks the plain tensor is asked for.
  EXPECT_THAT(ErrorWithout("gpt_oss_mxfp4", blocks, leave_out),
              HasSubstr("model.layers.1.mlp.experts.down_proj"));
  EXPECT_THAT(ErrorWithout("gpt_oss_mxfp4", "model.layers.1.mlp.experts.gate_up_proj_bias",
                           [](Written& tensor) {
                             tensor.declaration.shape = {2 * 160, 8};
                             return true;
                           }),
              HasSubstr("gate_up_proj_bias: its shape is [320, 8], but "));
  const std::string packed = "model.layers.1.mlp.experts.4.up_proj.weight_packed";
  EXPECT_THAT(
      ErrorWithout("kimi_k2_int4", "model.layers.1.mlp.experts.4.up_proj.weight_scale", leave_out),
      HasSubstr("tensor " + packed + ": is i4, but its scales are missing: "));
  EXPECT_THAT(ErrorWithout("kimi_k2_int4", "model.layers.1.mlp.experts.4.up_proj.weight_shape",
                           [](Written& tensor) {
                             tensor.data[0] = std::byte{127};
                             return true;
                           }),
              HasSubstr("weight_shape: says [127, 64], but " + packed + " holds [128, 64]"));
}

// Kimi K2.5: the language model under a prefix, its config and its quantisation in an object.
TEST(ModelSourceTest, OpensPackedExpertsInsideAMultimodalCheckpoint) {
  const ModelCopy copy("kimi_k2_int4");
  copy.Write("config.json", {{"model_type", "kimi_k25"},
                             {"torch_dtype", "bfloat16"},
                             {"text_config", copy.Read("config.json")}});
  std::vector<Written> tensors = TensorsOf("kimi_k2_int4");
  for (Written& tensor : tensors) {
    tensor.declaration.name = "language_model." + tensor.declaration.name;
  }
  tensors.push_back(
      {{.name = "vision_tower.patch_embed.proj.weight", .shape = {1}}, std::vector<std::byte>(4)});
  copy.Remove("model.safetensors");
  WriteSafetensors(copy.path(), tensors);
  const auto source = ModelSource::Open(copy.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->spec.family, "kimi_k25");
  EXPECT_EQ((*source)->stored, DType::kOffsetI4);
  EXPECT_EQ(OpenStoredType(copy.path()).value(), DType::kOffsetI4);
  const auto plain = ModelSource::Open(NanoPath("kimi_k2_int4"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_EQ((*source)->bindings.size(), (*plain)->bindings.size());
  for (size_t i = 0; i < (*plain)->bindings.size(); ++i) {
    const WeightBinding& inner = (*source)->bindings[i];
    const WeightBinding& same = (*plain)->bindings[i];
    EXPECT_EQ(inner.tensor, "language_model." + same.tensor);
    EXPECT_EQ(inner.scales, same.scales.empty() ? "" : "language_model." + same.scales);
    EXPECT_EQ(inner.stored, same.stored);
  }
}

// The same model with its experts stacked as transformers 5 keeps them reads the same weights.
TEST(ModelSourceTest, StackedExpertsReadTheSameWeights) {
  const ModelCopy copy("qwen3_moe");
  const auto separate = ModelSource::Open(NanoPath("qwen3_moe"));
  ASSERT_TRUE(separate.ok()) << separate.status();
  const Checkpoint& checkpoint = *(*separate)->checkpoint;
  std::vector<Written> tensors;
  for (const std::string& name : checkpoint.TensorNames()) {
    if (name.find(".experts.") != std::string::npos) continue;
    const auto view = checkpoint.Find(name);
    ASSERT_TRUE(view.ok());
    tensors.push_back({{.name = name, .dtype = view->dtype, .shape = view->shape},
                       {view->data.begin(), view->data.end()}});
  }
  constexpr uint64_t kExperts = 8;
  constexpr uint64_t kHidden = 32;
  constexpr uint64_t kWidth = 16;
  for (const int layer : {0, 1}) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".mlp.experts.");
    Written gate_up{{.name = prefix + "gate_up_proj", .shape = {kExperts, 2 * kWidth, kHidden}},
                    {}};
    Written down{{.name = prefix + "down_proj", .shape = {kExperts, kHidden, kWidth}}, {}};
    for (uint64_t expert = 0; expert < kExperts; ++expert) {
      for (const auto& [part, target] :
           {std::pair{"gate_proj", &gate_up}, {"up_proj", &gate_up}, {"down_proj", &down}}) {
        const auto view = checkpoint.Find(absl::StrCat(prefix, expert, ".", part, ".weight"));
        ASSERT_TRUE(view.ok()) << view.status();
        target->data.insert(target->data.end(), view->data.begin(), view->data.end());
      }
    }
    tensors.push_back(std::move(gate_up));
    tensors.push_back(std::move(down));
  }
  copy.Remove("model.safetensors");
  WriteSafetensors(copy.path(), tensors);
  const auto stacked = ModelSource::Open(copy.path());
  ASSERT_TRUE(stacked.ok()) << stacked.status();
  for (const WeightRole role : {WeightRole::kGate, WeightRole::kUp, WeightRole::kDown}) {
    for (const int32_t expert : {0, 3, 7}) {
      EXPECT_EQ(ValuesOf(**stacked, role, 1, expert), ValuesOf(**separate, role, 1, expert));
    }
  }
  // Seven experts of eight are a contradiction.
  copy.SetConfig("num_experts", 7);
  EXPECT_THAT(ErrorOf(copy.path()), HasSubstr("its shape is "));
}

// nano/mixtral as a GGUF file: other names, rows of queries and keys in rotary pairs, experts
// stacked.
std::string WriteMixtralGguf(const ScratchDirectory& directory, const ModelSource& source) {
  std::vector<TensorDeclaration> declarations;
  std::vector<std::vector<std::byte>> data;
  for (const WeightBinding& binding : source.bindings) {
    const GgufTensor tensor = GgufTensorName("mixtral", binding.tensor).value();
    const TensorView view = source.checkpoint->Find(binding.tensor).value();
    std::vector<std::byte> bytes(view.data.begin(), view.data.end());
    if (tensor.rope_permuted) {
      const size_t row_bytes = binding.cols * sizeof(float);
      for (uint64_t row = 0; row < binding.rows; ++row) {
        std::copy_n(view.data.begin() + static_cast<ptrdiff_t>(row * row_bytes), row_bytes,
                    bytes.begin() + static_cast<ptrdiff_t>(GgufRopeRow(row, 8) * row_bytes));
      }
    }
    if (!tensor.expert.has_value()) {
      declarations.push_back({.name = tensor.name, .dtype = view.dtype, .shape = view.shape});
      data.push_back(std::move(bytes));
      continue;
    }
    const auto same = std::find_if(declarations.begin(), declarations.end(),
                                   [&](const auto& other) { return other.name == tensor.name; });
    if (same == declarations.end()) {
      declarations.push_back(
          {.name = tensor.name, .dtype = view.dtype, .shape = {8, view.shape[0], view.shape[1]}});
      data.push_back(std::move(bytes));
    } else {
      auto& stacked = data[static_cast<size_t>(same - declarations.begin())];
      stacked.insert(stacked.end(), bytes.begin(), bytes.end());
    }
  }
  const GgufMetadataList metadata = {{"general.architecture", std::string("llama")},
                                     {"llama.block_count", uint64_t{2}},
                                     {"llama.embedding_length", uint64_t{32}},
                                     {"llama.context_length", uint64_t{128}},
                                     {"llama.attention.head_count", uint64_t{4}},
                                     {"llama.attention.head_count_kv", uint64_t{2}},
                                     {"llama.feed_forward_length", uint64_t{24}},
                                     {"llama.expert_count", uint64_t{8}},
                                     {"llama.expert_used_count", uint64_t{2}},
                                     {"llama.rope.freq_base", 10000.0},
                                     {"llama.attention.layer_norm_rms_epsilon", 0.01},
                                     {"tokenizer.ggml.eos_token_id", uint64_t{286}}};
  const std::string path = directory / "nano.gguf";
  auto writer = CreateGgufWriter(path, metadata, declarations);
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const auto& bytes : data) EXPECT_TRUE((*writer)->Append(bytes).ok());
  EXPECT_TRUE((*writer)->Finish().ok());
  return path;
}

TEST(ModelSourceTest, GgufReadsTheSameModel) {
  const auto original = ModelSource::Open(NanoPath("mixtral"));
  ASSERT_TRUE(original.ok()) << original.status();
  const ScratchDirectory directory;
  const std::string path = WriteMixtralGguf(directory, **original);
  const auto opened = ModelSource::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const ModelSource& source = **opened;
  EXPECT_EQ(source.name, "nano");
  EXPECT_EQ(source.tokenizer, nullptr);
  EXPECT_EQ(source.stored, DType::kF32);
  EXPECT_EQ(source.spec.layers, (*original)->spec.layers);
  EXPECT_EQ(source.spec.eos_tokens, (*original)->spec.eos_tokens);
  EXPECT_EQ(OpenSpec(path)->layers, source.spec.layers);
  EXPECT_EQ(OpenStoredType(path).value(), DType::kF32);
  for (const int32_t expert : {0, 5}) {
    EXPECT_EQ(ValuesOf(source, WeightRole::kUp, 1, expert),
              ValuesOf(**original, WeightRole::kUp, 1, expert));
  }
  for (const WeightRole role : {WeightRole::kQuery, WeightRole::kKey}) {
    const std::vector<float> file = ValuesOf(source, role, 1, -1);
    const std::vector<float> expected = ValuesOf(**original, role, 1, -1);
    // By the rule that WeightBinding::interleaved_head_dim states.
    for (size_t row = 0; row < expected.size() / 32; ++row) {
      const size_t in_head = row % 8;
      const size_t stored = row - in_head + (in_head < 4 ? 2 * in_head : 2 * (in_head - 4) + 1);
      ASSERT_TRUE(std::equal(expected.begin() + static_cast<ptrdiff_t>(row * 32),
                             expected.begin() + static_cast<ptrdiff_t>((row + 1) * 32),
                             file.begin() + static_cast<ptrdiff_t>(stored * 32)));
    }
  }
  for (const WeightBinding& binding : source.bindings) {
    const bool permuted = binding.role == WeightRole::kQuery || binding.role == WeightRole::kKey;
    EXPECT_EQ(binding.interleaved_head_dim, permuted ? 8u : 0u);
  }
  EXPECT_EQ(OpenTextFiles(path).status().code(), absl::StatusCode::kNotFound);
}

// Files that llama.cpp's converter wrote from nano checkpoints (tests/parity/make_gguf_nano.py).
TEST(ModelSourceTest, GgufDescribesTheSameLayers) {
  const struct {
    const char* gguf;
    const char* nano;
  } kFiles[] = {{"deepseek2", "deepseek_v3"},
                {"deepseek2_unsplit", "deepseek_v3"},
                {"deepseek2_dense", "moonlight_dense"},
                {"deepseek32", "deepseek_v32"},
                {"ernie4_5", "ernie4_5"},
                {"ernie4_5-moe", "ernie4_5_moe"},
                {"glm4", "glm4"},
                {"glm4moe", "glm4_moe"},
                {"llama4", "llama4_published"},
                {"minimax-m2", "minimax_m2"}};
  for (const auto& [gguf, nano] : kFiles) {
    SCOPED_TRACE(gguf);
    const auto original = ModelSource::Open(NanoPath(nano));
    ASSERT_TRUE(original.ok()) << original.status();
    const auto opened =
        ModelSource::Open(absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/gguf/nano_", gguf, ".gguf"));
    ASSERT_TRUE(opened.ok()) << opened.status();
    const ModelSource& source = **opened;
    EXPECT_EQ(source.spec.layers, (*original)->spec.layers);
    EXPECT_EQ(source.spec.norm_eps, (*original)->spec.norm_eps);
    EXPECT_EQ(source.spec.max_context_tokens, (*original)->spec.max_context_tokens);
    EXPECT_EQ(source.spec.tied_embeddings, (*original)->spec.tied_embeddings);
    EXPECT_EQ(source.spec.eos_tokens, (*original)->spec.eos_tokens);
    EXPECT_EQ(source.spec.NumParameters(), (*original)->spec.NumParameters());
    ASSERT_NE(source.tokenizer, nullptr);
    const std::string text = "The quick brown fox, 3 times.";
    EXPECT_EQ(source.tokenizer->Encode(text, {}).value(),
              (*original)->tokenizer->Encode(text, {}).value());
  }
}

TEST(ModelSourceTest, ASplitGgufHasTheNameOfTheWhole) {
  const ScratchDirectory directory;
  const std::string whole = absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/gguf/nano_ernie4_5.gguf");
  for (const auto& [file, name] : {std::pair{"m-00001-of-00001.gguf", "m"},
                                   {"m-00002-of-00002.gguf", "m-00002-of-00002"},
                                   {"-00001-of-00001.gguf", "-00001-of-00001"}}) {
    std::filesystem::copy_file(whole, directory / file);
    const auto opened = ModelSource::Open(directory / file);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ((*opened)->name, name);
  }
}

}  // namespace
}  // namespace essor::model
