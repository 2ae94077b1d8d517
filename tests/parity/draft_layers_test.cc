// Layers that guess tokens ahead, behind the last one of nano checkpoints: left alone by default,
// held when asked for, refused where they cannot be. transformers has none of them: what is tested
// is that holding them changes no bit of the answers, and that they are held whole and in place.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/plan/memory_plan.h"
#include "nlohmann/json.hpp"
#include "tests/parity/golden.h"
#include "tests/support/local_instance.h"
#include "worker/loader/weight_loader.h"

namespace essor::testing {
namespace {

using model::DraftLayers;
using model::ModelSource;
using model::WeightBinding;
using model::WeightRole;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string NanoPath(const std::string& name) {
  return absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", name);
}

struct Tensor {
  model::TensorDeclaration declaration;
  std::vector<std::byte> data;
};

// A copy of a nano model with a draft layer behind its last one: that layer's tensors turned round
// by a few elements, and random ones for the rest.
class DraftModel {
 public:
  DraftModel(const std::string& name, bool own_embedding_and_head) {
    std::filesystem::copy(NanoPath(name), directory_.path());
    config_ = nlohmann::json::parse(ReadFile(directory_ / "config.json"));
    config_["num_nextn_predict_layers"] = 1;
    const auto checkpoint = model::OpenSafetensors(NanoPath(name));
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    const std::string last = absl::StrCat(LayerPrefix(last_layer()));
    for (const std::string& tensor : (*checkpoint)->TensorNames()) {
      const model::TensorView view = (*checkpoint)->Find(tensor).value();
      tensors_.push_back({{.name = tensor, .dtype = view.dtype, .shape = view.shape},
                          {view.data.begin(), view.data.end()}});
      if (!tensor.starts_with(last)) continue;
      Tensor copy = tensors_.back();
      copy.declaration.name = absl::StrCat(prefix(), tensor.substr(last.size()));
      if (copy.data.size() > kTurned) {
        std::rotate(copy.data.begin(), copy.data.begin() + kTurned, copy.data.end());
      }
      tensors_.push_back(std::move(copy));
    }
    const uint64_t hidden = config_["hidden_size"];
    const uint64_t vocabulary = config_["vocab_size"];
    AddRandom("enorm.weight", {hidden});
    AddRandom("hnorm.weight", {hidden});
    AddRandom("eh_proj.weight", {hidden, 2 * hidden});
    AddRandom("shared_head.norm.weight", {hidden});
    if (own_embedding_and_head) {
      AddRandom("embed_tokens.weight", {vocabulary, hidden});
      AddRandom("shared_head.head.weight", {vocabulary, hidden});
    }
    Write();
  }

  uint32_t last_layer() const { return config_["num_hidden_layers"].get<uint32_t>() - 1; }
  // Of the draft layer's tensors.
  std::string prefix() const { return LayerPrefix(last_layer() + 1); }
  std::string path() const { return directory_.path(); }

  void AddRandom(const std::string& name, std::vector<uint64_t> shape) {
    uint64_t count = 1;
    for (const uint64_t dim : shape) count *= dim;
    Tensor tensor{{.name = prefix() + name, .dtype = DType::kF32, .shape = std::move(shape)},
                  std::vector<std::byte>(count * sizeof(float))};
    std::normal_distribution<float> normal;
    for (uint64_t i = 0; i < count; ++i) {
      const float value = normal(random_);
      std::memcpy(tensor.data.data() + i * sizeof(float), &value, sizeof(float));
    }
    tensors_.push_back(std::move(tensor));
  }
  void Remove(const std::string& name) {
    std::erase_if(tensors_,
                  [&](const Tensor& tensor) { return tensor.declaration.name == prefix() + name; });
  }
  void SetConfig(const std::string& key, const nlohmann::json& value) { config_[key] = value; }

  void Write() const {
    directory_.Write("config.json", config_.dump());
    std::vector<model::TensorDeclaration> declarations;
    for (const Tensor& tensor : tensors_) declarations.push_back(tensor.declaration);
    auto writer =
        model::CreateSafetensorsWriter(directory_.path(), declarations, uint64_t{1} << 40);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const Tensor& tensor : tensors_) ASSERT_TRUE((*writer)->Append(tensor.data).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

 private:
  static constexpr size_t kTurned = 4;  // bytes: whole elements of every type here

  static std::string LayerPrefix(uint32_t layer) {
    return absl::StrCat("model.layers.", layer, ".");
  }

  ScratchDirectory directory_;
  nlohmann::json config_;
  std::vector<Tensor> tensors_;
  std::mt19937 random_{20261125};
};

std::string ErrorOf(const std::string& path) {
  const auto source = ModelSource::Open(path, DraftLayers::kLoad);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument) << source.status();
  return std::string(source.status().message());
}

std::unique_ptr<LocalInstance> Instance(const std::string& path, const std::string& plan,
                                        DraftLayers draft_layers) {
  auto instance = LocalInstance::Create({.model_path = path,
                                         .plan = plan,
                                         .limits = {.block_tokens = 8,
                                                    .max_step_tokens = 64,
                                                    .max_sequences = 4,
                                                    .max_context_tokens = 96},
                                         .num_blocks = 64,
                                         .draft_layers = draft_layers});
  EXPECT_TRUE(instance.ok()) << instance.status();
  return instance.ok() ? *std::move(instance) : nullptr;
}

struct PlanCase {
  const char* model;
  const char* plan;
};

class DraftLayersPlanTest : public ::testing::TestWithParam<PlanCase> {};

TEST_P(DraftLayersPlanTest, HoldingThemChangesNoBitAndTakesThePlannedBytes) {
  const auto golden = ReadGolden(GetParam().model);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const DraftModel model(GetParam().model, /*own_embedding_and_head=*/true);
  const auto skipping = Instance(model.path(), GetParam().plan, DraftLayers::kSkip);
  const auto holding = Instance(model.path(), GetParam().plan, DraftLayers::kLoad);
  ASSERT_TRUE(skipping != nullptr && holding != nullptr);
  const GoldenPrompt& prompt = golden->prompts.back();
  const auto expected = skipping->Logits(prompt.ids, 16);
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(holding->Logits(prompt.ids, 16).value(), *expected);
  EXPECT_EQ(holding->Generate(prompt.ids, 16, {}).value(),
            skipping->Generate(prompt.ids, 16, {}).value());

  const auto source = ModelSource::Open(model.path(), DraftLayers::kLoad);
  ASSERT_TRUE(source.ok()) << source.status();
  const model::ModelSpec& spec = (*source)->spec;
  const auto plan = model::ParallelPlan::Parse(GetParam().plan).value();
  const model::QuantBlock quant_block = model::QuantBlockOf((*source)->stored);
  uint64_t draft_bytes = 0;
  for (const model::RankLayout& layout : LayoutsOf(plan, spec, quant_block)) {
    auto slices = SlicesOf(layout, spec, (*source)->bindings);
    EXPECT_EQ(holding->weight_bytes()[layout.rank],
              WeightBytes(slices, (*source)->stored, /*fp32=*/false));
    std::erase_if(slices, [&](const model::WeightSlice& slice) {
      return slice.binding.layer < static_cast<int32_t>(spec.layers.size());
    });
    EXPECT_EQ(slices.empty(), !layout.last_stage);
    draft_bytes += WeightBytes(slices, (*source)->stored, /*fp32=*/false);
  }
  const auto sum = [](const std::vector<uint64_t>& bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
  };
  EXPECT_EQ(sum(holding->weight_bytes()), sum(skipping->weight_bytes()) + draft_bytes);
}

std::vector<PlanCase> PlanCases() {
  std::vector<PlanCase> cases;
  for (const char* model : {"deepseek_v3", "deepseek_v3_fp8", "deepseek_v32", "glm4_moe"}) {
    for (const char* plan : {"tp=1", "tp=2", "tp=3", "ep=3", "pp=2", "pp=2,tp=2"}) {
      cases.push_back({model, plan});
    }
  }
  return cases;
}

std::string PlanName(const ::testing::TestParamInfo<PlanCase>& test) {
  std::string name = absl::StrCat(test.param.model, "_", test.param.plan);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !isalnum(c); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Plans, DraftLayersPlanTest, ::testing::ValuesIn(PlanCases()), PlanName);

// What one rank holds of a model whose weights are all plain.
struct Held {
  std::unique_ptr<ModelSource> source;
  std::unique_ptr<const worker::RankWeights> weights;

  std::vector<float> Stored(const std::string& name) const {
    const model::TensorView view = source->checkpoint->Find(name).value();
    uint64_t count = 1;
    for (const uint64_t dim : view.shape) count *= dim;
    std::vector<float> values(count);
    EXPECT_TRUE(model::DecodeToFloat(view, 0, std::span(values)).ok());
    return values;
  }
};

Held Load(const DraftModel& model) {
  Held held;
  held.source = ModelSource::Open(model.path(), DraftLayers::kLoad).value();
  const model::RankLayout layout = model::LayoutOf({}, held.source->spec, 0, 1);
  const auto slices = SlicesOf(layout, held.source->spec, held.source->bindings);
  held.weights = worker::LoadRankWeights({.checkpoint = held.source->checkpoint.get(),
                                          .layout = &layout,
                                          .slices = &slices,
                                          .precision = worker::Precision::kFloat32})
                     .value();
  return held;
}

std::vector<float> Unpacked(const kernels::PackedMatrix& matrix) {
  std::vector<float> values(size_t{matrix.n} * matrix.k);
  for (uint32_t row = 0; row < matrix.n; ++row) {
    kernels::UnpackRow(matrix, row, std::span(values).subspan(size_t{row} * matrix.k, matrix.k));
  }
  return values;
}

TEST(DraftLayersTest, EveryWeightIsInItsPlace) {
  const DraftModel model("deepseek_v3", /*own_embedding_and_head=*/true);
  const Held held = Load(model);
  ASSERT_EQ(held.weights->draft_layers.size(), 1u);
  EXPECT_EQ(held.weights->layers.size(), held.source->spec.layers.size());
  const worker::DraftLayerWeights& draft = held.weights->draft_layers[0];
  const uint32_t hidden = held.source->spec.hidden_size;
  const auto vector = [&](const float* data) { return std::vector<float>(data, data + hidden); };
  const auto stored = [&](const std::string& name) { return held.Stored(model.prefix() + name); };
  EXPECT_EQ(vector(draft.embedding_norm), stored("enorm.weight"));
  EXPECT_EQ(vector(draft.hidden_norm), stored("hnorm.weight"));
  EXPECT_EQ(vector(draft.final_norm), stored("shared_head.norm.weight"));
  EXPECT_EQ(draft.input.k, 2 * hidden);
  EXPECT_EQ(Unpacked(draft.input), stored("eh_proj.weight"));
  EXPECT_EQ(Unpacked(draft.embedding), stored("embed_tokens.weight"));
  EXPECT_EQ(Unpacked(draft.head), stored("shared_head.head.weight"));
  EXPECT_EQ(vector(draft.layer.attention_norm), stored("input_layernorm.weight"));
  EXPECT_EQ(Unpacked(draft.layer.query), stored("self_attn.q_b_proj.weight"));
  EXPECT_EQ(Unpacked(draft.layer.router), stored("mlp.gate.weight"));
  ASSERT_EQ(draft.layer.experts.size(), 8u);
  EXPECT_EQ(Unpacked(draft.layer.experts[7].down), stored("mlp.experts.7.down_proj.weight"));
  EXPECT_EQ(Unpacked(draft.layer.dense.up), stored("mlp.shared_experts.up_proj.weight"));
  // And the model's own are not mixed up with them.
  EXPECT_EQ(vector(held.weights->final_norm), held.Stored("model.norm.weight"));
  EXPECT_EQ(Unpacked(held.weights->embedding), held.Stored("model.embed_tokens.weight"));
  EXPECT_EQ(Unpacked(held.weights->head), held.Stored("lm_head.weight"));
}

TEST(DraftLayersTest, EmbeddingAndHeadMayBeTheModels) {
  const DraftModel model("glm4_moe", /*own_embedding_and_head=*/false);
  const Held held = Load(model);
  ASSERT_EQ(held.weights->draft_layers.size(), 1u);
  const worker::DraftLayerWeights& draft = held.weights->draft_layers[0];
  EXPECT_EQ(draft.embedding.n, 0u);
  EXPECT_EQ(draft.head.n, 0u);
  EXPECT_EQ(Unpacked(draft.input), held.Stored(model.prefix() + "eh_proj.weight"));
}

TEST(DraftLayersTest, WithoutBeingAskedForTheyAreLeftAlone) {
  DraftModel model("deepseek_v3", /*own_embedding_and_head=*/true);
  model.AddRandom("of_no_known_use", {3});
  model.Write();
  const auto source = ModelSource::Open(model.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->spec.draft_layers.empty());
  EXPECT_TRUE(std::none_of(
      (*source)->bindings.begin(), (*source)->bindings.end(),
      [&](const WeightBinding& binding) { return binding.tensor.starts_with(model.prefix()); }));
}

TEST(DraftLayersTest, TheirTensorsAreCheckedLikeOthers) {
  DraftModel model("deepseek_v3", /*own_embedding_and_head=*/true);
  model.AddRandom("of_no_known_use", {3});
  model.Write();
  EXPECT_THAT(ErrorOf(model.path()),
              AllOf(HasSubstr("model.layers.3.of_no_known_use"), HasSubstr("has no place for it")));
  model.Remove("of_no_known_use");
  model.Remove("hnorm.weight");
  model.Write();
  EXPECT_THAT(ErrorOf(model.path()),
              AllOf(HasSubstr("config.json asks for a tensor that is missing: "),
                    HasSubstr("model.layers.3.hnorm.weight")));
  model.AddRandom("hnorm.weight", {16});
  model.Write();
  EXPECT_THAT(ErrorOf(model.path()), AllOf(HasSubstr("model.layers.3.hnorm.weight: its shape is "
                                                     "[16], but "),
                                           HasSubstr("config.json asks for [32]")));
}

// A checkpoint may come without the layers that its config speaks of.
TEST(DraftLayersTest, ThatAreNotThereAreMissing) {
  DraftModel model("deepseek_v3", /*own_embedding_and_head=*/true);
  model.SetConfig("num_nextn_predict_layers", 2);
  model.Write();
  EXPECT_THAT(ErrorOf(model.path()), HasSubstr("model.layers.4.eh_proj.weight"));
  EXPECT_TRUE(ModelSource::Open(model.path()).ok());
  model.SetConfig("num_nextn_predict_layers", 4);
  model.Write();
  EXPECT_THAT(ErrorOf(model.path()), HasSubstr("num_nextn_predict_layers: 4 draft layers behind 3 "
                                               "layers are too many to load"));
  EXPECT_TRUE(ModelSource::Open(model.path()).ok());
}

TEST(DraftLayersTest, AreRefusedWhereThereAreNone) {
  EXPECT_THAT(ErrorOf(NanoPath("llama")),
              HasSubstr("config.json: model_type: draft layers were asked for, but \"llama\" has "
                        "none here"));
  EXPECT_THAT(ErrorOf(NanoPath("deepseek_v3")), HasSubstr("\"deepseek_v3\" has none here"));
}

TEST(DraftLayersTest, OtherFormsAreRefused) {
  for (const std::string family : {"minimax_m2", "qwen3_next", "ernie4_5_moe"}) {
    EXPECT_THAT(ErrorOf(NanoPath(family)),
                AllOf(HasSubstr(absl::StrCat("\"", family, "\" keeps them in a form that is not")),
                      HasSubstr("only full layers with experts behind the last one")));
  }
  const ScratchDirectory directory;
  EXPECT_THAT(ErrorOf(directory.Write("x.gguf", "")),
              HasSubstr("x.gguf: draft layers of GGUF files cannot be loaded"));
}

}  // namespace
}  // namespace essor::testing
