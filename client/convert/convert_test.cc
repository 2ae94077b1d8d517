#include "client/convert/convert.h"

#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/convert/source_model.h"
#include "client/convert/tokenizer_json_writer.h"
#include "client/convert/weight_stream.h"
#include "common/float16.h"
#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/gguf_names.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_json.h"
#include "nlohmann/json.hpp"

namespace essor::client {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kText[] =
    "It's 2026: the cat sat on 12345 mats,\n\n  na\u00efve caf\u00e9 \u65e5\u672c!";

std::string Nano(const std::string& name) {
  return std::string(ESSOR_SOURCE_DIR) + "/tests/data/nano/" + name;
}

std::vector<float> Values(const model::Checkpoint& checkpoint, const std::string& name) {
  const model::TensorView view = checkpoint.Find(name).value();
  uint64_t count = 1;
  for (const uint64_t extent : view.shape) count *= extent;
  std::vector<float> values(count);
  EXPECT_TRUE(DecodeToFloat(view, 0, values).ok());
  return values;
}

std::vector<TokenId> Encode(const model::Tokenizer& tokenizer) {
  return tokenizer.Encode(kText, {.add_special = true, .parse_special = false}).value();
}

absl::Status Convert(const std::string& source, const std::string& output,
                     ConvertType to = ConvertType::kF32,
                     std::optional<Upcycle> upcycle = std::nullopt) {
  ConvertOptions options;
  options.source = source;
  options.output = output;
  options.to = to;
  options.upcycle = upcycle;
  return ConvertModel(options);
}

// Rows permuted and back, experts stacked and taken apart, config and tokenizer translated: what
// comes back from GGUF is what went in.
class RoundTripTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTripTest, ThroughGgufGivesTheSameModel) {
  const ScratchDirectory scratch;
  const std::string source = Nano(GetParam());
  ASSERT_TRUE(fs::exists(source)) << source;
  absl::Status status = Convert(source, scratch / "m.gguf");
  ASSERT_TRUE(status.ok()) << status;
  status = Convert(scratch / "m.gguf", scratch / "back");
  ASSERT_TRUE(status.ok()) << status;

  const auto before = model::OpenSafetensors(source).value();
  const auto after = model::OpenSafetensors(scratch / "back").value();
  ASSERT_EQ(after->TensorNames(), before->TensorNames());
  for (const std::string& name : before->TensorNames()) {
    EXPECT_EQ(after->Find(name).value().shape, before->Find(name).value().shape);
    EXPECT_EQ(Values(*after, name), Values(*before, name)) << name;
  }
  const model::ModelSpec spec = SourceModel::Open(source).value().spec;
  const model::ModelSpec back = SourceModel::Open(scratch / "back").value().spec;
  EXPECT_EQ(back.family, spec.family);
  EXPECT_EQ(back.vocab_size, spec.vocab_size);
  EXPECT_EQ(back.norm_eps, spec.norm_eps);
  EXPECT_EQ(back.max_context_tokens, spec.max_context_tokens);
  EXPECT_EQ(back.tied_embeddings, spec.tied_embeddings);
  EXPECT_EQ(back.eos_tokens, spec.eos_tokens);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const auto& rope = std::get<model::GroupedQueryAttention>(spec.layers[i].attention).rope;
    EXPECT_EQ(std::get<model::GroupedQueryAttention>(back.layers[i].attention).rope, rope);
    if (const auto* moe = std::get_if<model::MoeFfn>(&spec.layers[i].ffn)) {
      const auto& other = std::get<model::MoeFfn>(back.layers[i].ffn);
      EXPECT_EQ(other.top_k, moe->top_k);
      EXPECT_EQ(other.router.renormalise, moe->router.renormalise);
    }
  }
}

TEST_P(RoundTripTest, ThroughGgufGivesTheSameTokenIds) {
  const ScratchDirectory scratch;
  const std::string source = Nano(GetParam());
  ASSERT_TRUE(Convert(source, scratch / "m.gguf").ok());
  ASSERT_TRUE(Convert(scratch / "m.gguf", scratch / "back").ok());
  const auto ids =
      Encode(*model::Tokenizer::FromTokenizerJson(ReadFile(source + "/tokenizer.json")).value());
  ASSERT_GT(ids.size(), 10u);
  const auto gguf = model::GgufFile::Open(scratch / "m.gguf").value();
  EXPECT_EQ(Encode(*model::Tokenizer::FromGguf(*gguf).value()), ids);
  const std::string json = ReadFile(scratch / "back" + "/tokenizer.json");
  EXPECT_EQ(Encode(*model::Tokenizer::FromTokenizerJson(json).value()), ids);
  const auto config = nlohmann::json::parse(ReadFile(source + "/tokenizer_config.json"));
  const auto back = nlohmann::json::parse(ReadFile(scratch / "back" + "/tokenizer_config.json"));
  EXPECT_EQ(back["chat_template"], config["chat_template"]);
  EXPECT_EQ(back["eos_token"], config["eos_token"]);
}

INSTANTIATE_TEST_SUITE_P(Families, RoundTripTest,
                         ::testing::Values("llama", "llama_tied", "mixtral", "qwen2", "qwen3",
                                           "qwen3_moe"),
                         [](const auto& test) { return std::string(test.param); });

TEST(ConvertTest, RepackingRoundsToBf16AndKeepsTheOtherFiles) {
  const ScratchDirectory scratch;
  const std::string source = Nano("qwen3");
  ASSERT_TRUE(Convert(source, scratch / "out", ConvertType::kBF16).ok());
  const auto before = model::OpenSafetensors(source).value();
  const auto after = model::OpenSafetensors(scratch / "out").value();
  ASSERT_EQ(after->TensorNames(), before->TensorNames());
  for (const std::string& name : after->TensorNames()) {
    EXPECT_EQ(after->Find(name).value().dtype, DType::kBF16);
    std::vector<float> expected = Values(*before, name);
    for (float& value : expected) value = ToFloat(ToBFloat16(value));
    EXPECT_EQ(Values(*after, name), expected) << name;
  }
  EXPECT_EQ(ReadFile(scratch / "out" + "/tokenizer.json"), ReadFile(source + "/tokenizer.json"));
  auto config = nlohmann::json::parse(ReadFile(source + "/config.json"));
  const auto back = nlohmann::json::parse(ReadFile(scratch / "out" + "/config.json"));
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = "bfloat16";
  EXPECT_EQ(back, config);
}

TEST(ConvertTest, LargeModelsAreSharded) {
  const ScratchDirectory scratch;
  ConvertOptions options;
  options.source = Nano("llama");
  options.output = scratch / "out";
  options.to = ConvertType::kF32;
  options.shard_bytes = 50'000;
  ASSERT_TRUE(ConvertModel(options).ok());
  EXPECT_TRUE(fs::exists(scratch / "out" + "/model.safetensors.index.json"));
  const auto before = model::OpenSafetensors(options.source).value();
  const auto after = model::OpenSafetensors(options.output).value();
  for (const std::string& name : before->TensorNames()) {
    EXPECT_EQ(Values(*after, name), Values(*before, name)) << name;
  }
}

// A value is off by at most half a step of amax / 127, and by the scale's own rounding to half
// precision: 127 steps of a relative error of 2^-11.
TEST(ConvertTest, Q8KeepsValuesWithinHalfAStep) {
  const ScratchDirectory scratch;
  ASSERT_TRUE(Convert(Nano("llama"), scratch / "m.gguf", ConvertType::kQ8_0).ok());
  const auto before = model::OpenSafetensors(Nano("llama")).value();
  const auto after = model::GgufFile::Open(scratch / "m.gguf").value();
  EXPECT_EQ(after->Find("output_norm.weight").value().dtype, DType::kF32);
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  EXPECT_EQ(after->Find("blk.1.ffn_down.weight").value().dtype, DType::kQ8_0);
  const std::vector<float> expected = Values(*before, name);
  const std::vector<float> actual = Values(*after, "blk.1.ffn_down.weight");
  for (size_t block = 0; block < expected.size(); block += 32) {
    float largest = 0.0f;
    for (size_t i = block; i < block + 32; ++i) largest = std::max(largest, std::abs(expected[i]));
    for (size_t i = block; i < block + 32; ++i) {
      ASSERT_NEAR(actual[i], expected[i], largest * (0.5 / 127 + 0x1p-11)) << i;
    }
  }
}

// Equal types are copied, so quantising again changes nothing, rotary rows included.
TEST(ConvertTest, RepackingGgufKeepsBlocksAndWhatTheFileSaysOfItself) {
  const ScratchDirectory scratch;
  ASSERT_TRUE(Convert(Nano("llama"), scratch / "a.gguf", ConvertType::kQ8_0).ok());
  ASSERT_TRUE(Convert(scratch / "a.gguf", scratch / "b.gguf", ConvertType::kQ8_0).ok());
  EXPECT_TRUE(ReadFile(scratch / "b.gguf") == ReadFile(scratch / "a.gguf"));

  model::GgufMetadataList metadata;
  const auto source = model::GgufFile::Open(scratch / "a.gguf").value();
  for (const auto& entry : source->metadata()) metadata.push_back(entry);
  metadata.emplace_back("general.license", std::string("apache-2.0"));
  std::vector<model::TensorDeclaration> tensors;
  for (const std::string& name : source->TensorNames()) {
    const model::TensorView view = source->Find(name).value();
    tensors.push_back({.name = name, .dtype = view.dtype, .shape = view.shape});
  }
  const auto writer = model::CreateGgufWriter(scratch / "c.gguf", metadata, tensors).value();
  for (const auto& tensor : tensors) {
    ASSERT_TRUE(writer->Append(source->Find(tensor.name).value().data).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  ASSERT_TRUE(Convert(scratch / "c.gguf", scratch / "d.gguf", ConvertType::kQ8_0).ok());
  const auto licensed = model::GgufFile::Open(scratch / "d.gguf").value();
  EXPECT_EQ(licensed->metadata().at("general.license"),
            model::GgufValue(std::string("apache-2.0")));
}

class UpcycleTest : public ::testing::Test {
 protected:
  // Upcycled nano llama: 4 experts, 2 for a token.
  std::string Make(const std::string& name, std::optional<uint64_t> perturb_seed) {
    const Upcycle upcycle = {.num_experts = 4, .top_k = 2, .perturb_seed = perturb_seed};
    const absl::Status status = Convert(Nano("llama"), scratch_ / name, ConvertType::kF32, upcycle);
    EXPECT_TRUE(status.ok()) << status;
    return scratch_ / name;
  }
  static std::string Expert(int expert, const char* part) {
    return absl::StrCat("model.layers.1.block_sparse_moe.experts.", expert, ".", part, ".weight");
  }
  ScratchDirectory scratch_;
};

TEST_F(UpcycleTest, ExpertsAreCopiesBehindARouter) {
  const auto dense = model::OpenSafetensors(Nano("llama")).value();
  const SourceModel moe = SourceModel::Open(Make("moe", std::nullopt)).value();
  EXPECT_EQ(moe.spec.family, "mixtral");
  const auto& ffn = std::get<model::MoeFfn>(moe.spec.layers[0].ffn);
  EXPECT_EQ(ffn.num_experts, 4u);
  EXPECT_EQ(ffn.top_k, 2u);
  for (const auto& [part, name] : {std::pair{"w1", "gate"}, {"w3", "up"}, {"w2", "down"}}) {
    const std::vector<float> expected =
        Values(*dense, absl::StrCat("model.layers.1.mlp.", name, "_proj.weight"));
    for (int expert = 0; expert < 4; ++expert) {
      EXPECT_EQ(Values(*moe.checkpoint, Expert(expert, part)), expected);
    }
  }
  const std::vector<float> router =
      Values(*moe.checkpoint, "model.layers.1.block_sparse_moe.gate.weight");
  EXPECT_EQ(router.size(), 4u * 64u);
  double squares = 0.0;
  for (const float value : router) squares += double{value} * value;
  // Normals of standard deviation 64^-0.5; five deviations of the mean square of 256 draws.
  EXPECT_NEAR(squares / 256 * 64, 1.0, 5 * std::sqrt(1.9 / 256));
  EXPECT_NE(router, Values(*moe.checkpoint, "model.layers.0.block_sparse_moe.gate.weight"));
}

TEST_F(UpcycleTest, PerturbationAddsSeededNoiseToExpertsOnly) {
  const auto plain = model::OpenSafetensors(Make("moe", std::nullopt)).value();
  const auto noisy = model::OpenSafetensors(Make("noisy", 7)).value();
  std::set<std::string> changed;
  for (const std::string& name : plain->TensorNames()) {
    const std::vector<float> before = Values(*plain, name);
    const std::vector<float> after = Values(*noisy, name);
    if (before == after) continue;
    changed.insert(name);
    double squares = 0.0;
    double noise = 0.0;
    double sum = 0.0;
    for (size_t i = 0; i < before.size(); ++i) {
      sum += before[i];
      squares += double{before[i]} * before[i];
      noise += std::pow(double{after[i]} - before[i], 2);
    }
    const double n = static_cast<double>(before.size());
    const double variance = squares / n - sum / n * (sum / n);
    // 0.05 of the standard deviation; five deviations of the mean square of n draws.
    EXPECT_NEAR(noise / n / variance, 0.0025, 0.0025 * 5 * std::sqrt(1.9 / n)) << name;
  }
  EXPECT_EQ(changed.size(), 2u * 4u * 3u);  // layers, experts, projections
  EXPECT_NE(Values(*noisy, Expert(0, "w1")), Values(*noisy, Expert(1, "w1")));
}

TEST_F(UpcycleTest, TheSameSeedGivesTheSameBytes) {
  const std::string first = ReadFile(Make("a", 7) + "/model.safetensors");
  EXPECT_EQ(first, ReadFile(Make("b", 7) + "/model.safetensors"));
  EXPECT_NE(first, ReadFile(Make("c", 8) + "/model.safetensors"));
}

// The same model whether it goes to GGUF at once or by way of a directory.
TEST_F(UpcycleTest, GgufAndDirectoryHoldTheSameModel) {
  const Upcycle upcycle = {.num_experts = 4, .top_k = 2, .perturb_seed = 7};
  ASSERT_TRUE(Convert(Nano("llama"), scratch_ / "m.gguf", ConvertType::kF32, upcycle).ok());
  ASSERT_TRUE(Convert(scratch_ / "m.gguf", scratch_ / "from_gguf").ok());
  EXPECT_EQ(ReadFile(scratch_ / "from_gguf" + "/model.safetensors"),
            ReadFile(Make("direct", 7) + "/model.safetensors"));
}

TEST_F(UpcycleTest, Qwen3BecomesQwen3Moe) {
  const Upcycle upcycle = {.num_experts = 3, .top_k = 1, .perturb_seed = std::nullopt};
  ASSERT_TRUE(Convert(Nano("qwen3"), scratch_ / "moe", ConvertType::kF32, upcycle).ok());
  const SourceModel moe = SourceModel::Open(scratch_ / "moe").value();
  EXPECT_EQ(moe.spec.family, "qwen3_moe");
  EXPECT_TRUE(std::get<model::MoeFfn>(moe.spec.layers[0].ffn).router.renormalise);
}

// ------------------------------------------------------------------ errors

void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& message) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(ConvertErrorTest, BadOptions) {
  const ScratchDirectory scratch;
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectError(Convert(Nano("llama"), scratch / "out", ConvertType::kQ8_0), kInvalid,
              "q8_0 can be stored in GGUF files only");
  ExpectError(Convert(Nano("llama"), Nano("llama")), kInvalid, "is the source itself");
  ExpectError(Convert(scratch / "none", scratch / "out"), absl::StatusCode::kNotFound,
              "none: does not exist");
  ExpectError(Convert(Nano("mixtral"), scratch / "out", ConvertType::kF32, Upcycle()), kInvalid,
              "mixtral is a Mixture of Experts already");
  ExpectError(Convert(Nano("qwen2"), scratch / "out", ConvertType::kF32, Upcycle()), kInvalid,
              "cannot upcycle the family qwen2 (possible: llama, qwen3)");
  ExpectError(Convert(Nano("llama"), scratch / "out", ConvertType::kF32,
                      Upcycle{.num_experts = 2, .top_k = 3, .perturb_seed = {}}),
              kInvalid, "3 of 2 experts cannot be chosen");
  ExpectError(Convert(Nano("qwen3_moe_mixed"), scratch / "m.gguf"), kInvalid,
              "some layers have experts and some have not");
  for (const char* output : {"out", "m.gguf"}) {
    ExpectError(Convert(Nano("moonlight_dense"), scratch / output), kInvalid,
                "converting models with latent attention is not supported");
    ExpectError(Convert(Nano("minimax"), scratch / output), kInvalid,
                "minimax has lightning attention");
    for (const char* name : {"llama4", "llama4_multimodal", "gpt_oss"}) {
      ExpectError(Convert(Nano(name), scratch / output), kInvalid,
                  "experts.gate_up_proj is transposed");
    }
    ExpectError(Convert(Nano("glm4"), scratch / output), kInvalid,
                "layers.0.mlp.gate_up_proj.weight holds several weights, and converting models "
                "with shared tensors is not supported");
    for (const char* name : {"gpt_oss_mxfp4", "kimi_k2_int4"}) {
      ExpectError(Convert(Nano(name), scratch / output), kInvalid,
                  "quantised checkpoints cannot be converted");
    }
  }
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

TEST(ConvertErrorTest, BrokenSources) {
  const ScratchDirectory scratch;
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  fs::copy(Nano("llama"), scratch / "in");
  const auto with_config = [&](auto change) {
    auto config = nlohmann::json::parse(ReadFile(Nano("llama") + "/config.json"));
    change(config);
    scratch.Write("in/config.json", config.dump());
    return Convert(scratch / "in", scratch / "out");
  };
  ExpectError(with_config([](auto& c) { c["model_type"] = "bert"; }), kInvalid, "bert");
  ExpectError(with_config([](auto& c) {
                c["quantization_config"] = {{"quant_method", "fp8"}};
              }),
              kInvalid, "quantised checkpoints cannot be converted");
  ExpectError(with_config([](auto& c) { c["num_hidden_layers"] = 3; }), kInvalid,
              "model.layers.2.");
  ExpectError(with_config([](auto& c) { c["intermediate_size"] = 32; }), kInvalid,
              "asks for [64, 32]");
  scratch.Write("bad.gguf", "GGUF");
  ExpectError(Convert(scratch / "bad.gguf", scratch / "out"), kInvalid, "bad.gguf: ends inside");
  EXPECT_FALSE(fs::exists(scratch / "out"));
  EXPECT_FALSE(fs::exists(scratch / "out.partial"));
}

TEST(ConvertErrorTest, GgufHoldsByteLevelVocabulariesOnly) {
  const ScratchDirectory scratch;
  fs::copy(Nano("llama"), scratch / "model");
  fs::copy_file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/tokenizer/plain_bpe_prepend.json",
                scratch / "model" + "/tokenizer.json", fs::copy_options::overwrite_existing);
  ExpectError(Convert(scratch / "model", scratch / "m.gguf"), absl::StatusCode::kInvalidArgument,
              "only byte-level vocabularies");
  fs::rename(scratch / "model" + "/tokenizer.json", scratch / "model" + "/tokenizer.model");
  ExpectError(Convert(scratch / "model", scratch / "m.gguf"), absl::StatusCode::kInvalidArgument,
              "tokenizer.model cannot be written to GGUF; only tokenizer.json can");
}

TEST(ConvertErrorTest, ExistingOutputsAreKeptUnlessToldOtherwise) {
  const ScratchDirectory scratch;
  fs::create_directory(scratch / "out");
  scratch.Write("out/notes.txt", "mine");
  scratch.Write("out/model-00001-of-00009.safetensors", "old");
  ConvertOptions options;
  options.source = Nano("llama");
  options.output = scratch / "out";
  ExpectError(ConvertModel(options), absl::StatusCode::kAlreadyExists,
              "out: exists and is not empty");
  options.overwrite = true;
  ASSERT_TRUE(ConvertModel(options).ok());
  EXPECT_TRUE(model::OpenSafetensors(scratch / "out").ok());
  EXPECT_EQ(ReadFile(scratch / "out/notes.txt"), "mine");
  EXPECT_FALSE(fs::exists(scratch / "out/model-00001-of-00009.safetensors"));
  EXPECT_FALSE(fs::exists(scratch / "out.partial"));

  scratch.Write("m.gguf", "old");
  options.output = scratch / "m.gguf";
  options.overwrite = false;
  ExpectError(ConvertModel(options), absl::StatusCode::kAlreadyExists, "m.gguf: exists");
  EXPECT_EQ(ReadFile(scratch / "m.gguf"), "old");
  options.output = scratch / "notes.gguf";
  fs::create_directory(options.output);
  ExpectError(ConvertModel(options), absl::StatusCode::kInvalidArgument, "is a directory");
}

TEST(ConvertErrorTest, EmptyDirectoriesAndMissingParentsAreFine) {
  const ScratchDirectory scratch;
  fs::create_directory(scratch / "empty");
  EXPECT_TRUE(Convert(Nano("llama"), scratch / "empty/").ok());
  EXPECT_TRUE(model::OpenSafetensors(scratch / "empty").ok());
  EXPECT_TRUE(Convert(Nano("llama"), scratch / "a/b/m.gguf").ok());
}

TEST(ConvertErrorTest, UnwritablePlacesAreNamed) {
  const ScratchDirectory scratch;
  scratch.Write("file", "x");
  const absl::Status status = Convert(Nano("llama"), scratch / "file/out");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("file"));
}

TEST(ConvertTest, ProgressEndsAtAll) {
  const ScratchDirectory scratch;
  std::vector<std::string> lines;
  ConvertOptions options;
  options.source = Nano("mixtral");
  options.output = scratch / "m.gguf";
  options.progress = [&](const std::string& line) { lines.push_back(line); };
  ASSERT_TRUE(ConvertModel(options).ok());
  ASSERT_GE(lines.size(), 3u);
  EXPECT_THAT(lines.front(), AllOf(HasSubstr("mixtral"), HasSubstr("bf16")));
  EXPECT_THAT(lines[lines.size() - 2], HasSubstr("100 %"));
  EXPECT_THAT(lines.back(), HasSubstr("wrote " + options.output));
  EXPECT_LE(lines.size(), 24u);
}

TEST(ParseTest, UpcycleAndTypes) {
  EXPECT_EQ(ParseUpcycle("8x2").value().num_experts, 8u);
  EXPECT_EQ(ParseUpcycle("8x2").value().top_k, 2u);
  for (const char* const bad : {"", "8", "8x", "x2", "2x8", "8x0", "8x2x1", "-8x2", "axb"}) {
    ExpectError(ParseUpcycle(bad).status(), absl::StatusCode::kInvalidArgument,
                "is not EXPERTSxTOP_K");
  }
  EXPECT_EQ(ParseConvertType("q8_0").value(), ConvertType::kQ8_0);
  ExpectError(ParseConvertType("q4").status(), absl::StatusCode::kInvalidArgument,
              "unknown element type q4 (known: bf16, f32, q8_0)");
}

TEST(WeightStreamTest, CanonicalRowInvertsTheInterleaving) {
  for (uint64_t row = 0; row < 48; ++row) {
    EXPECT_EQ(CanonicalRow(model::GgufRopeRow(row, 16), 16), row);
  }
}

// Definitions survive writing: normalisers, patterns, BOS, tokens that are not special.
TEST(TokenizerJsonTest, WhatIsWrittenReadsBackTheSame) {
  for (const char* const name : {"small_llama3", "small_gpt2", "small_flags"}) {
    const std::string path =
        std::string(ESSOR_SOURCE_DIR) + "/tests/data/tokenizer/" + name + ".json";
    const std::string json = ReadFile(path);
    ASSERT_FALSE(json.empty()) << path;
    const auto definition = model::ParseTokenizerJson(json);
    ASSERT_TRUE(definition.ok()) << definition.status();
    const std::string written = TokenizerJson(*definition);
    const auto back = model::ParseTokenizerJson(written);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(TokenizerJson(*back), written);
    EXPECT_EQ(Encode(*model::Tokenizer::FromTokenizerJson(written).value()),
              Encode(*model::Tokenizer::FromTokenizerJson(json).value()))
        << name;
  }
}

}  // namespace
}  // namespace essor::client
