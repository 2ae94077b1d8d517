#include "worker/loader/weight_loader.h"

#include <atomic>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/float16.h"
#include "common/float4.h"
#include "common/float8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/plan/memory_plan.h"

namespace essor::worker {
namespace {

using model::WeightRole;
using ::testing::HasSubstr;

// Tensors in memory; value of element i of a tensor is base + i, of u8 mod 256, of e4m3 its code is
// i mod 127.
class FakeCheckpoint : public model::Checkpoint {
 public:
  void Add(const std::string& name, std::vector<uint64_t> shape, float base, DType dtype) {
    uint64_t count = 1;
    for (const uint64_t dim : shape) count *= dim;
    std::vector<std::byte>& bytes = bytes_[name];
    bytes.resize(StorageBytes(dtype, count));
    for (uint64_t i = 0; i < count; ++i) {
      const float value = base + static_cast<float>(i);
      if (dtype == DType::kF32) std::memcpy(bytes.data() + 4 * i, &value, 4);
      const uint16_t half = ToBFloat16(value).bits;
      if (dtype == DType::kBF16) std::memcpy(bytes.data() + 2 * i, &half, 2);
      if (dtype == DType::kF8E4M3) bytes[i] = static_cast<std::byte>(i % 127);
      if (dtype == DType::kU8) bytes[i] = static_cast<std::byte>(static_cast<uint64_t>(base) + i);
    }
    views_[name] = {
        .name = name, .file = "fake", .dtype = dtype, .shape = std::move(shape), .data = bytes};
  }
  absl::StatusOr<model::TensorView> Find(const std::string& name) const override {
    const auto found = views_.find(name);
    if (found == views_.end()) return absl::NotFoundError("no tensor " + name);
    return found->second;
  }
  bool Contains(const std::string& name) const override { return views_.contains(name); }
  std::vector<std::string> TensorNames() const override { return {}; }
  std::string Fingerprint() const override { return ""; }

 private:
  std::map<std::string, std::vector<std::byte>> bytes_;
  std::map<std::string, model::TensorView> views_;
};

model::WeightSlice Slice(WeightRole role, const std::string& tensor, model::Range rows,
                         model::Range cols, uint64_t whole_cols) {
  return {
      .binding = {.role = role, .layer = 0, .rows = rows.end, .cols = whole_cols, .tensor = tensor},
      .rows = rows,
      .cols = cols};
}

model::RankLayout OneLayer(model::Range experts) {
  model::RankLayout layout;
  layout.layers = {0, 1};
  layout.last_stage = true;
  layout.per_layer.resize(1);
  layout.per_layer[0].experts = experts;
  return layout;
}

std::vector<float> Row(const kernels::PackedMatrix& matrix, uint32_t row) {
  std::vector<float> out(matrix.k);
  kernels::UnpackRow(matrix, row, out);
  return out;
}

TEST(WeightLoaderTest, LoadsOnlyTheSlice) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("o", {4, 6}, 0, DType::kF32);
  checkpoint.Add("norm", {1, 6}, 100, DType::kBF16);
  const auto layout = OneLayer({});
  const std::vector<model::WeightSlice> slices = {
      Slice(WeightRole::kOutput, "o", {1, 3}, {2, 5}, 6),
      Slice(WeightRole::kAttentionNorm, "norm", {0, 1}, {0, 6}, 6)};
  const auto weights = LoadRankWeights(
      {.checkpoint = &checkpoint, .layout = &layout, .slices = &slices, .num_threads = 2});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const LayerWeights& layer = (*weights)->layers[0];
  ASSERT_EQ(layer.output.n, 2u);
  EXPECT_EQ(Row(layer.output, 0), (std::vector<float>{8, 9, 10}));
  EXPECT_EQ(Row(layer.output, 1), (std::vector<float>{14, 15, 16}));
  EXPECT_EQ(layer.attention_norm[5], 105.0f);
}

// Stored rows 0..3 of a head of 4 are canonical rows 0, 2, 1, 3.
TEST(WeightLoaderTest, UndoesTheInterleavingOfHeads) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("q", {8, 1}, 0, DType::kF32);
  auto slice = Slice(WeightRole::kQuery, "q", {4, 8}, {0, 1}, 1);
  slice.binding.interleaved_head_dim = 4;
  const std::vector<model::WeightSlice> slices = {slice};
  const auto layout = OneLayer({});
  const auto weights =
      LoadRankWeights({.checkpoint = &checkpoint, .layout = &layout, .slices = &slices});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const kernels::PackedMatrix& query = (*weights)->layers[0].query;
  EXPECT_EQ(Row(query, 0)[0], 4);
  EXPECT_EQ(Row(query, 1)[0], 6);
  EXPECT_EQ(Row(query, 2)[0], 5);
  EXPECT_EQ(Row(query, 3)[0], 7);
}

TEST(WeightLoaderTest, FindsExpertsInsideAStackedTensor) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("experts", {3, 2, 2}, 0, DType::kBF16);
  std::vector<model::WeightSlice> slices;
  for (int32_t expert = 1; expert < 3; ++expert) {
    auto slice = Slice(WeightRole::kUp, "experts", {0, 2}, {0, 2}, 2);
    slice.binding.expert = expert;
    slice.binding.first_row = static_cast<uint64_t>(2 * expert);
    slices.push_back(slice);
  }
  const auto layout = OneLayer({1, 3});
  const auto weights =
      LoadRankWeights({.checkpoint = &checkpoint, .layout = &layout, .slices = &slices});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto& experts = (*weights)->layers[0].experts;
  ASSERT_EQ(experts.size(), 2u);
  EXPECT_EQ(Row(experts[0].up, 1), (std::vector<float>{6, 7}));
  EXPECT_EQ(Row(experts[1].up, 0), (std::vector<float>{8, 9}));
  EXPECT_EQ(experts[0].up.format, kernels::WeightFormat::kBF16);
}

// kv_b_proj of two heads: for each two key rows, then one value row, over a latent of 65, which
// takes two packing tasks.
TEST(WeightLoaderTest, TransposesTheKeysOfEachHead) {
  constexpr uint32_t kLatent = 65;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    FakeCheckpoint checkpoint;
    checkpoint.Add("kv_b", {6, kLatent}, 0, dtype);
    auto key = Slice(WeightRole::kKeyUp, "kv_b", {0, kLatent}, {0, 2}, 2);
    key.binding.head = 1;
    key.binding.first_row = 3;
    key.binding.transposed = true;
    auto value = Slice(WeightRole::kValueUp, "kv_b", {0, 1}, {0, kLatent}, kLatent);
    value.binding.head = 1;
    value.binding.first_row = 5;
    const std::vector<model::WeightSlice> slices = {key, value};
    const auto layout = OneLayer({});
    const auto weights = LoadRankWeights(
        {.checkpoint = &checkpoint, .layout = &layout, .slices = &slices, .num_threads = 2});
    ASSERT_TRUE(weights.ok()) << weights.status();
    const LatentWeights& latent = (*weights)->layers[0].latent;
    const auto stored = [&](uint32_t row, uint32_t column) {
      const auto exact = static_cast<float>(row * kLatent + column);
      return dtype == DType::kF32 ? exact : ToFloat(ToBFloat16(exact));
    };
    ASSERT_EQ(latent.key_up.size(), 1u);
    ASSERT_EQ(latent.value_up.size(), 1u);
    ASSERT_EQ(latent.key_up[0].n, kLatent);
    for (uint32_t i = 0; i < kLatent; ++i) {
      EXPECT_EQ(Row(latent.key_up[0], i), (std::vector<float>{stored(3, i), stored(4, i)}));
      EXPECT_EQ(Row(latent.value_up[0], 0)[i], stored(5, i));
    }
  }
}

// Llama 4's experts: [experts, hidden, 2 * intermediate], gate before up, and [experts,
// intermediate, hidden], of which a rank holds some intermediate columns. Values are those of the
// checkpoint, in several packing tasks, straight from bfloat16 and by way of floats.
TEST(WeightLoaderTest, TakesExpertsOutOfStackedTransposedTensors) {
  constexpr uint32_t kHidden = 12001;  // rows of it go into tasks of 128
  constexpr uint32_t kWidth = 150;
  constexpr model::Range kColumns = {3, 143};
  struct Case {
    DType stored;
    Precision precision;
  };
  for (const Case& c : {Case{DType::kBF16, Precision::kStored},
                        {DType::kF32, Precision::kStored},
                        {DType::kF32, Precision::kBFloat16},
                        {DType::kBF16, Precision::kFloat32}}) {
    FakeCheckpoint checkpoint;
    checkpoint.Add("gate_up", {2, kHidden, 2 * kWidth}, 0, c.stored);
    checkpoint.Add("down", {2, kWidth, kHidden}, 7, c.stored);
    std::vector<model::WeightSlice> slices;
    for (const WeightRole role : {WeightRole::kGate, WeightRole::kUp, WeightRole::kDown}) {
      const bool down = role == WeightRole::kDown;
      model::WeightSlice slice{.binding = {.role = role,
                                           .layer = 0,
                                           .expert = 1,
                                           .rows = down ? kHidden : kWidth,
                                           .cols = down ? kWidth : kHidden,
                                           .tensor = down ? "down" : "gate_up",
                                           .first_row = down ? kWidth : kHidden,
                                           .transposed = true},
                               .rows = down ? model::Range{0, kHidden} : kColumns,
                               .cols = down ? kColumns : model::Range{0, kHidden}};
      if (!down) slice.binding.tensor_cols = 2 * kWidth;
      if (role == WeightRole::kUp) slice.binding.first_col = kWidth;
      slices.push_back(slice);
    }
    const auto layout = OneLayer({1, 2});
    const auto weights = LoadRankWeights({.checkpoint = &checkpoint,
                                          .layout = &layout,
                                          .slices = &slices,
                                          .precision = c.precision,
                                          .num_threads = 2});
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto value = [&](uint64_t element, float base) {
      const float exact = base + static_cast<float>(element);
      const bool rounded = c.stored == DType::kBF16 || c.precision == Precision::kBFloat16;
      return rounded ? ToFloat(ToBFloat16(exact)) : exact;
    };
    const kernels::GatedFfnWeights& expert = (*weights)->layers[0].experts[0];
    ASSERT_EQ(expert.gate.n, kColumns.size());
    ASSERT_EQ(expert.down.k, kColumns.size());
    for (uint32_t n = 0; n < kColumns.size(); ++n) {
      const std::vector<float> gate = Row(expert.gate, n);
      const std::vector<float> up = Row(expert.up, n);
      for (uint64_t h = 0; h < kHidden; ++h) {
        const uint64_t row = (kHidden + h) * 2 * kWidth;
        ASSERT_EQ(gate[h], value(row + kColumns.begin + n, 0)) << n << " " << h;
        ASSERT_EQ(up[h], value(row + kWidth + kColumns.begin + n, 0)) << n << " " << h;
      }
    }
    for (uint64_t h = 0; h < kHidden; ++h) {
      const std::vector<float> down = Row(expert.down, static_cast<uint32_t>(h));
      for (uint64_t i = 0; i < kColumns.size(); ++i) {
        ASSERT_EQ(down[i], value((kWidth + kColumns.begin + i) * kHidden + h, 7)) << h << " " << i;
      }
    }
  }
}

// Blocks of 32 run across what becomes a row.
TEST(WeightLoaderTest, TransposedWeightsAreNotHeldQuantised) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("kv_b", {64, 32}, 0, DType::kQ8_0);  // all zero
  auto key = Slice(WeightRole::kKeyUp, "kv_b", {0, 32}, {0, 64}, 64);
  key.binding.head = 0;
  key.binding.transposed = true;
  key.binding.stored = DType::kQ8_0;
  auto query = key;
  query.binding.role = WeightRole::kQuery;
  const std::vector<model::WeightSlice> slices = {key, query};
  const auto layout = OneLayer({});
  const auto weights =
      LoadRankWeights({.checkpoint = &checkpoint, .layout = &layout, .slices = &slices});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->layers[0].latent.key_up[0].format, kernels::WeightFormat::kBF16);
  EXPECT_EQ((*weights)->layers[0].query.format, kernels::WeightFormat::kBF16);
  EXPECT_EQ((*weights)->storage.size(), model::WeightBytes(slices, DType::kQ8_0, false));
}

TEST(WeightLoaderTest, RoutersStayInFloat32) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("router", {2, 2}, 0, DType::kBF16);
  const std::vector<model::WeightSlice> slices = {
      Slice(WeightRole::kRouter, "router", {0, 2}, {0, 2}, 2)};
  const auto layout = OneLayer({0, 2});
  const auto weights =
      LoadRankWeights({.checkpoint = &checkpoint, .layout = &layout, .slices = &slices});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->layers[0].router.format, kernels::WeightFormat::kF32);
}

// A 300 x 300 matrix "w", of which a rank holds rows and columns that cut blocks of scales.
class Fp8LoadTest : public ::testing::Test {
 protected:
  Fp8LoadTest() {
    checkpoint_.Add("w", {300, 300}, 0, DType::kF8E4M3);
    auto slice = Slice(WeightRole::kOutput, "w", {100, 270}, {80, 290}, 300);
    slice.binding.scales = "w_scale_inv";
    slices_ = {slice};
  }
  absl::StatusOr<std::unique_ptr<const RankWeights>> Load(Precision precision) {
    return LoadRankWeights({.checkpoint = &checkpoint_,
                            .layout = &layout_,
                            .slices = &slices_,
                            .precision = precision});
  }

  FakeCheckpoint checkpoint_;
  std::vector<model::WeightSlice> slices_;
  const model::RankLayout layout_ = OneLayer({});
};

TEST_F(Fp8LoadTest, SlicesThatCutBlocksKeepTheirScales) {
  checkpoint_.Add("w_scale_inv", {3, 3}, 1, DType::kF32);
  for (const Precision precision :
       {Precision::kStored, Precision::kBFloat16, Precision::kFloat32}) {
    const auto weights = Load(precision);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const kernels::PackedMatrix& output = (*weights)->layers[0].output;
    const bool fp8 = precision != Precision::kFloat32;
    EXPECT_EQ(output.format, fp8 ? kernels::WeightFormat::kFp8 : kernels::WeightFormat::kF32);
    EXPECT_EQ(output.block_offset, fp8 ? 80u : 0u);
    ASSERT_EQ(output.n, 170u);
    for (uint32_t n = 0; n < 170; ++n) {
      const std::vector<float> row = Row(output, n);
      for (uint32_t c = 0; c < 210; ++c) {
        const uint32_t r = 100 + n;
        const uint32_t column = 80 + c;
        const Float8E4M3 code{static_cast<uint8_t>((r * 300 + column) % 127)};
        const auto scale = static_cast<float>(1 + r / 128 * 3 + column / 128);
        ASSERT_EQ(row[c], scale * ToFloat(code)) << n << " " << c;
      }
    }
  }
}

// Expert 1 of a stack of two matrices whose rows are no multiple of a block.
TEST_F(Fp8LoadTest, StackedExpertsHaveScalesOfTheirOwn) {
  checkpoint_.Add("experts", {2, 130, 4}, 0, DType::kF8E4M3);
  checkpoint_.Add("experts_scale_inv", {2, 2, 1}, 1, DType::kF32);
  auto slice = Slice(WeightRole::kUp, "experts", {0, 130}, {0, 4}, 4);
  slice.binding.expert = 1;
  slice.binding.first_row = 130;
  slice.binding.scales = "experts_scale_inv";
  slices_ = {slice};
  const auto layout = OneLayer({1, 2});
  const auto weights =
      LoadRankWeights({.checkpoint = &checkpoint_, .layout = &layout, .slices = &slices_});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const kernels::PackedMatrix& up = (*weights)->layers[0].experts[0].up;
  for (const uint32_t row : {0u, 127u, 128u, 129u}) {
    const Float8E4M3 code{static_cast<uint8_t>((130 + row) * 4 % 127)};
    EXPECT_EQ(Row(up, row)[0], ToFloat(code) * (row < 128 ? 3.0f : 4.0f)) << row;
  }
}

TEST_F(Fp8LoadTest, MissingAndBrokenScalesAreRefused) {
  EXPECT_THAT(std::string(Load(Precision::kStored).status().message()), HasSubstr("w_scale_inv"));
  checkpoint_.Add("w_scale_inv", {5, 5}, 1, DType::kF32);
  EXPECT_THAT(std::string(Load(Precision::kStored).status().message()),
              HasSubstr("fake: tensor w_scale_inv: its shape is [5, 5]"));
  // The first four of nine are negative.
  checkpoint_.Add("w_scale_inv", {3, 3}, -4, DType::kF32);
  for (const Precision precision : {Precision::kStored, Precision::kFloat32}) {
    EXPECT_THAT(std::string(Load(precision).status().message()),
                HasSubstr("fake: tensor w_scale_inv: scale "));
  }
}

// Two experts of three gates and ups in turn over four inputs.
TEST(WeightLoaderTest, TakesGatesAndUpsApart) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("plain", {2, 4, 6}, 0, DType::kBF16);  // [experts, inputs, outputs]
  checkpoint.Add("rows", {2, 6, 4}, 0, DType::kF32);    // [experts, outputs, inputs]
  checkpoint.Add("bias", {2, 6}, 0, DType::kF32);
  auto plain = Slice(WeightRole::kUp, "plain", {1, 3}, {0, 4}, 4);
  plain.binding.expert = 1;
  plain.binding.transposed = true;
  plain.binding.first_row = 4;
  auto rows = Slice(WeightRole::kGate, "rows", {1, 3}, {0, 4}, 4);
  rows.binding.expert = 1;
  rows.binding.first_row = 6;
  auto bias = Slice(WeightRole::kUpBias, "bias", {0, 1}, {1, 3}, 3);
  bias.binding.expert = 1;
  bias.binding.first_row = 1;
  for (auto* slice : {&plain, &rows, &bias}) slice->binding.output_step = 2;
  for (auto* slice : {&plain, &bias}) {
    slice->binding.first_col = 1;
    slice->binding.tensor_cols = 6;
  }
  const std::vector<model::WeightSlice> slices = {plain, rows, bias};
  const auto layout = OneLayer({1, 2});
  const auto weights = LoadRankWeights({.checkpoint = &checkpoint,
                                        .layout = &layout,
                                        .slices = &slices,
                                        .precision = Precision::kFloat32});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const kernels::GatedFfnWeights& expert = (*weights)->layers[0].experts[0];
  // Expert 1 begins at element 24; ups are outputs 1, 3 and 5, of which the slice has the last two.
  EXPECT_EQ(Row(expert.up, 0), (std::vector<float>{27, 33, 39, 45}));
  EXPECT_EQ(Row(expert.up, 1), (std::vector<float>{29, 35, 41, 47}));
  EXPECT_EQ(Row(expert.gate, 0), (std::vector<float>{32, 33, 34, 35}));
  EXPECT_EQ(Row(expert.gate, 1), (std::vector<float>{40, 41, 42, 43}));
  EXPECT_EQ(expert.up_bias[0], 9);
  EXPECT_EQ(expert.up_bias[1], 11);
  EXPECT_EQ(expert.gate_bias, nullptr);
}

// Columns 32 to 95 of MXFP4 rows of 96, in turn with another weight's.
TEST(WeightLoaderTest, FourBitSlicesKeepTheirScales) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("w_blocks", {1, 140, 3, 16}, 0, DType::kU8);
  checkpoint.Add("w_scales", {1, 140, 3}, 4, DType::kU8);  // 2^-123 and so on
  auto slice = Slice(WeightRole::kUp, "w_blocks", {0, 70}, {32, 96}, 96);
  slice.binding.expert = 0;
  slice.binding.packed_as = DType::kF4E2M1;
  slice.binding.scales = "w_scales";
  slice.binding.output_step = 2;
  slice.binding.first_row = 1;
  std::vector<model::WeightSlice> slices = {slice};
  const auto layout = OneLayer({0, 1});
  LoadRequest request{.checkpoint = &checkpoint, .layout = &layout, .slices = &slices};
  // The scale of row 83's last group is 255, a NaN.
  slices[0].rows = {0, 41};
  for (const Precision precision : {Precision::kStored, Precision::kFloat32}) {
    request.precision = precision;
    const auto weights = LoadRankWeights(request);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const kernels::PackedMatrix& up = (*weights)->layers[0].experts[0].up;
    EXPECT_EQ(up.format, precision == Precision::kStored ? kernels::WeightFormat::kFp4
                                                         : kernels::WeightFormat::kF32);
    for (uint32_t n = 0; n < up.n; ++n) {
      const std::vector<float> row = Row(up, n);
      for (uint32_t c = 0; c < 64; ++c) {
        const uint32_t stored = 2 * n + 1;
        const uint32_t byte = (stored * 48 + (32 + c) / 2) % 256;
        const Float4E2M1 code{static_cast<uint8_t>(c % 2 == 0 ? byte & 15 : byte >> 4)};
        const Float8E8M0 scale{static_cast<uint8_t>(4 + stored * 3 + (32 + c) / 32)};
        ASSERT_EQ(row[c], ToFloat(code) * ToFloat(scale)) << n << " " << c;
      }
    }
  }
  slices[0].rows = {0, 70};
  for (const Precision precision : {Precision::kStored, Precision::kFloat32}) {
    request.precision = precision;
    EXPECT_THAT(std::string(LoadRankWeights(request).status().message()),
                HasSubstr("fake: tensor w_scales: scale 251 is nan"));
  }
  slices[0].cols = {16, 96};
  request.precision = Precision::kFloat32;
  EXPECT_THAT(std::string(LoadRankWeights(request).status().message()),
              HasSubstr("cut groups of 32"));
}

// The kernels take gate and up in one format, and so all experts of a layer.
TEST(WeightLoaderTest, MatricesOfAnFfnOfDifferentTypesAreRefused) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("gate", {4, 8}, 0, DType::kF32);
  checkpoint.Add("up", {4, 8}, 0, DType::kBF16);
  const model::RankLayout layout = OneLayer({});
  const std::vector<model::WeightSlice> slices = {
      Slice(WeightRole::kGate, "gate", {0, 4}, {0, 8}, 8),
      Slice(WeightRole::kUp, "up", {0, 4}, {0, 8}, 8)};
  LoadRequest request{.checkpoint = &checkpoint, .layout = &layout, .slices = &slices};
  EXPECT_EQ(LoadRankWeights(request).status().message(),
            "fake: tensor up is bf16 and gate is f32; matrices that are multiplied together need "
            "one type");
  request.precision = Precision::kFloat32;
  EXPECT_TRUE(LoadRankWeights(request).ok());
}

TEST(WeightLoaderTest, ReportsProgressUpToTheTotal) {
  FakeCheckpoint checkpoint;
  checkpoint.Add("q", {300, 64}, 0, DType::kF32);
  const std::vector<model::WeightSlice> slices = {
      Slice(WeightRole::kQuery, "q", {0, 300}, {0, 64}, 64)};
  const auto layout = OneLayer({});
  std::atomic<uint64_t> last{0};
  std::atomic<uint64_t> total{1};
  const auto weights = LoadRankWeights({.checkpoint = &checkpoint,
                                        .layout = &layout,
                                        .slices = &slices,
                                        .progress = [&](uint64_t done, uint64_t all) {
                                          last = done;
                                          total = all;
                                        }});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(last, total);
}

TEST(WeightLoaderTest, ErrorsNameTheTensorAndCancellingStops) {
  FakeCheckpoint checkpoint;
  const auto layout = OneLayer({});
  std::vector<model::WeightSlice> slices = {Slice(WeightRole::kQuery, "gone", {0, 1}, {0, 1}, 1)};
  const auto missing =
      LoadRankWeights({.checkpoint = &checkpoint, .layout = &layout, .slices = &slices});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("gone"));

  checkpoint.Add("q", {1, 1}, 0, DType::kF32);
  slices = {Slice(WeightRole::kQuery, "q", {0, 1}, {0, 1}, 1)};
  const std::atomic<bool> cancelled{true};
  const auto stopped = LoadRankWeights(
      {.checkpoint = &checkpoint, .layout = &layout, .slices = &slices, .cancelled = &cancelled});
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
}

TEST(FormatForTest, MapsStoredTypesAndPrecision) {
  using kernels::WeightFormat;
  EXPECT_EQ(FormatFor(DType::kF32, Precision::kStored), WeightFormat::kF32);
  EXPECT_EQ(FormatFor(DType::kF32, Precision::kBFloat16), WeightFormat::kBF16);
  EXPECT_EQ(FormatFor(DType::kF16, Precision::kStored), WeightFormat::kBF16);
  EXPECT_EQ(FormatFor(DType::kQ6_K, Precision::kStored), WeightFormat::kBF16);
  EXPECT_EQ(FormatFor(DType::kQ8_0, Precision::kBFloat16), WeightFormat::kQ8);
  EXPECT_EQ(FormatFor(DType::kQ4_1, Precision::kStored), WeightFormat::kQ4);
  EXPECT_EQ(FormatFor(DType::kQ4_1, Precision::kFloat32), WeightFormat::kF32);
  EXPECT_EQ(FormatFor(DType::kF8E4M3, Precision::kBFloat16), WeightFormat::kFp8);
  EXPECT_EQ(FormatFor(DType::kF8E4M3, Precision::kFloat32), WeightFormat::kF32);
  EXPECT_EQ(FormatFor(DType::kF4E2M1, Precision::kBFloat16), WeightFormat::kFp4);
  EXPECT_EQ(FormatFor(DType::kOffsetI4, Precision::kStored), WeightFormat::kInt4);
  EXPECT_THAT(std::string(ParsePrecision("fp8").status().message()), HasSubstr("\"fp8\""));
}

}  // namespace
}  // namespace essor::worker
