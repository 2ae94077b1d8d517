#include "model/checkpoint/gguf.h"

#include <filesystem>
#include <string>
#include <vector>

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/gguf_bytes.h"
#include "model/checkpoint/gguf_format.h"
#include "model/checkpoint/gguf_metadata.h"

namespace essor::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;
constexpr uint32_t kQ5_K = 13;

absl::StatusOr<GgufContents> Parse(const std::string& file) {
  return ParseGguf(std::as_bytes(std::span(file)), "m.gguf");
}

TEST(GgufTest, ReadsEveryValueType) {
  using Type = GgufValueType;
  GgufBytes file;
  file.Header(0, 15);
  file.Key("u8", Type::kUint8).Put<uint8_t>(200).Key("i8", Type::kInt8).Put<int8_t>(-3);
  file.Key("u16", Type::kUint16).Put<uint16_t>(60000).Key("i16", Type::kInt16).Put<int16_t>(-4);
  file.Uint("u32", 4'000'000'000).Key("i32", Type::kInt32).Put<int32_t>(-5);
  file.Key("u64", Type::kUint64).Put(~uint64_t{0}).Key("i64", Type::kInt64).Put(int64_t{-6});
  file.Key("f32", Type::kFloat32).Put(0.5f).Key("f64", Type::kFloat64).Put(0.25);
  file.Key("bool", Type::kBool).Put<uint8_t>(1).Key("text", Type::kString).Text("abc");
  file.Key("texts", Type::kArray).Put(Type::kString).Put<uint64_t>(2).Text("x").Text("");
  file.Key("ints", Type::kArray).Put(Type::kInt32).Put<uint64_t>(2).Put(int32_t{7}).Put(-8);
  file.Key("none", Type::kArray).Put(Type::kBool).Put<uint64_t>(0);
  const auto contents = Parse(file.bytes());
  ASSERT_TRUE(contents.ok()) << contents.status();
  const auto& metadata = contents->metadata;
  EXPECT_EQ(metadata.at("u8"), GgufValue(uint64_t{200}));
  EXPECT_EQ(metadata.at("i8"), GgufValue(int64_t{-3}));
  EXPECT_EQ(metadata.at("u16"), GgufValue(uint64_t{60000}));
  EXPECT_EQ(metadata.at("i16"), GgufValue(int64_t{-4}));
  EXPECT_EQ(metadata.at("u32"), GgufValue(uint64_t{4'000'000'000}));
  EXPECT_EQ(metadata.at("i32"), GgufValue(int64_t{-5}));
  EXPECT_EQ(metadata.at("u64"), GgufValue(~uint64_t{0}));
  EXPECT_EQ(metadata.at("i64"), GgufValue(int64_t{-6}));
  EXPECT_EQ(metadata.at("f32"), GgufValue(0.5));
  EXPECT_EQ(metadata.at("f64"), GgufValue(0.25));
  EXPECT_EQ(metadata.at("bool"), GgufValue(true));
  EXPECT_EQ(metadata.at("text"), GgufValue(std::string("abc")));
  EXPECT_EQ(metadata.at("texts"), GgufValue(std::vector<std::string>{"x", ""}));
  EXPECT_EQ(metadata.at("ints"), GgufValue(std::vector<int64_t>{7, -8}));
  EXPECT_EQ(metadata.at("none"), GgufValue(std::vector<bool>{}));
}

TEST(GgufTest, OpensAFileWithShapesOutermostFirst) {
  const ScratchDirectory directory;
  GgufBytes file;
  file.Header(2, 1, 2).Uint("general.alignment", 64);
  file.Tensor("w", {4, 3}, kF32, 0).Tensor("q", {32}, kQ4_0, 64).Align(64);
  file.Zeros(64 + 18);
  const std::string path = directory.Write("m.gguf", file.bytes());
  const auto opened = GgufFile::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_THAT((*opened)->TensorNames(), ElementsAre("q", "w"));
  const TensorView w = (*opened)->Find("w").value();
  EXPECT_THAT(w.shape, ElementsAre(3, 4));
  EXPECT_EQ(w.data.size(), 48u);
  EXPECT_EQ((*opened)->Find("q").value().data.data() - w.data.data(), 64);
  EXPECT_EQ((*opened)->path(), path);
  EXPECT_EQ(GgufUint(**opened, "general.alignment").value(), 64u);
}

TEST(GgufTest, UnsupportedTypesAreRefusedWhenLookedUp) {
  const ScratchDirectory directory;
  GgufBytes file;
  file.Header(1, 0).Tensor("w", {256}, kQ5_K, 0).Align().Zeros(176);
  const auto opened = GgufFile::Open(directory.Write("m.gguf", file.bytes()));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const absl::Status status = (*opened)->Find("w").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("m.gguf: tensor w"), HasSubstr("unsupported type Q5_K")));
}

TEST(GgufTest, MissingEmptyAndOddFilesAreErrors) {
  const ScratchDirectory directory;
  EXPECT_EQ(GgufFile::Open(directory / "none.gguf").status().code(), absl::StatusCode::kNotFound);
  const absl::Status empty = GgufFile::Open(directory.Write("empty.gguf", "")).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(empty.message()), HasSubstr("empty.gguf: ends inside the magic"));
  const absl::Status folder = GgufFile::Open(directory.path()).status();
  EXPECT_EQ(folder.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(folder.message()), HasSubstr("not a regular file"));
}

// Holes cost a file nothing, but each byte of an array would take eight in memory.
TEST(GgufTest, MetadataIsLimitedHoweverLargeTheFile) {
  using Type = GgufValueType;
  const ScratchDirectory directory;
  const auto error_of = [&](const GgufBytes& file, uint64_t size) {
    const std::string path = directory.Write("m.gguf", file.bytes());
    std::filesystem::resize_file(path, size);
    const absl::Status status = GgufFile::Open(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  constexpr uint64_t kFileBytes = 10'000'000'000;
  constexpr uint64_t kArrayBytes = 9'000'000'000;
  const std::string limit =
      "of the 536870912 that everything before the tensors' data may take "
      "(of 10000000000)";
  const GgufBytes array =
      GgufBytes().Header(0, 1).Key("k", Type::kArray).Put(Type::kUint8).Put(kArrayBytes);
  EXPECT_THAT(error_of(array, kFileBytes),
              AllOf(HasSubstr("m.gguf: metadata key k: an array of 9000000000 values does not fit"),
                    HasSubstr(limit)));
  const GgufBytes text = GgufBytes().Header(0, 1).Key("k", Type::kString).Put(kArrayBytes);
  EXPECT_THAT(error_of(text, kFileBytes),
              AllOf(HasSubstr("ends inside metadata key k: 9000000000"), HasSubstr(limit)));
  EXPECT_THAT(error_of(GgufBytes().Header(400'000'000, 0), kFileBytes),
              AllOf(HasSubstr("claims 400000000 tensors"), HasSubstr(limit)));
  // The data may be as large as it likes.
  GgufBytes file;
  file.Header(1, 1).Uint("u", 7).Tensor("w", {2'000'000'000}, kF32, 0).Align();
  const std::string path = directory.Write("m.gguf", file.bytes());
  std::filesystem::resize_file(path, kFileBytes);
  const auto opened = GgufFile::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->Find("w").value().data.size(), 8'000'000'000u);
}

struct Lie {
  GgufBytes file;
  std::string message;
};

TEST(GgufTest, EveryLieNamesFileAndKeyOrTensor) {
  using Type = GgufValueType;
  constexpr uint64_t kHuge = uint64_t{1} << 60;
  const std::vector<Lie> lies = {
      {GgufBytes().Put<uint32_t>(1).Zeros(40), "bad magic"},
      {GgufBytes().Header(0, 0, 1), "GGUF version 1 is not supported"},
      {GgufBytes().Header(0, 0, 0x03000000), "GGUF version 50331648"},  // big-endian
      {GgufBytes().Header(kHuge, 0), "claims 1152921504606846976 tensors"},
      {GgufBytes().Header(0, kHuge), "claims 1152921504606846976 metadata keys"},
      {GgufBytes().Header(0, 1).Put(kHuge).Zeros(20), "ends inside metadata key 0"},
      {GgufBytes().Header(0, 1).Text(std::string(70000, 'k')).Zeros(20), "over the limit of 65535"},
      {GgufBytes().Header(0, 1).Key("k", Type{13}).Zeros(9), "key k: unknown value type 13"},
      {GgufBytes().Header(0, 1).Key("k", Type::kArray).Put(Type::kArray).Zeros(9),
       "key k: arrays of arrays"},
      {GgufBytes().Header(0, 1).Key("k", Type::kArray).Put(Type::kUint8).Put(kHuge),
       "key k: an array of 1152921504606846976 values does not fit"},
      {GgufBytes()
           .Header(0, 1)
           .Key("k", Type::kArray)
           .Put(Type::kString)
           .Put(uint64_t{3})
           .Zeros(16),
       "key k: an array of 3 values does not fit into the 16 bytes left"},
      {GgufBytes().Header(0, 1).Key("k", Type::kString).Put(kHuge).Zeros(8), "ends inside"},
      {GgufBytes().Header(0, 1).Key("k", Type::kBool).Put<uint8_t>(2), "a bool must be 0 or 1"},
      {GgufBytes().Header(0, 2).Uint("k", 1).Uint("k", 2), "key k occurs twice"},
      {GgufBytes().Header(0, 1).Uint("general.alignment", 0), "must be a power of two"},
      {GgufBytes().Header(0, 1).Uint("general.alignment", 24), "must be a power of two"},
      {GgufBytes().Header(0, 1).Key("general.alignment", Type::kBool).Put<uint8_t>(1),
       "must be a power of two"},
      {GgufBytes().Header(1, 0).Tensor("w", {}, kF32, 0), "tensor w: has 0 dimensions"},
      {GgufBytes().Header(1, 0).Tensor("w", {1, 1, 1, 1, 1}, kF32, 0).Align().Zeros(4),
       "tensor w: has 5 dimensions"},
      {GgufBytes().Header(1, 0).Tensor("w", {4, 0}, kF32, 0), "tensor w: has a dimension of 0"},
      {GgufBytes().Header(1, 0).Tensor("w", {4}, 99, 0), "tensor w: unknown type 99"},
      {GgufBytes().Header(1, 0).Tensor("w", {48}, kQ4_0, 0), "rows of 48 elements do not divide"},
      {GgufBytes().Header(1, 0).Tensor("w", {kHuge, kHuge}, kF32, 0), "its shape is too large"},
      {GgufBytes().Header(1, 0).Tensor("w", {kHuge, 8}, kF32, 0), "its shape is too large"},
      {GgufBytes().Header(1, 0).Tensor("w", {8}, kF32, 4).Align().Zeros(64),
       "tensor w: offset 4 is not a multiple of the alignment 32"},
      {GgufBytes().Header(1, 0).Tensor("w", {8}, kF32, 32).Align().Zeros(32),
       "tensor w: 32 bytes at offset 32 lie outside the 32 bytes"},
      {GgufBytes().Header(1, 0).Tensor("w", {8}, kF32, 0), "tensor w: 32 bytes at offset 0"},
      {GgufBytes().Header(1, 0).Tensor("w", {8}, kF32, ~uint64_t{31}).Align().Zeros(32),
       "lie outside"},
      {GgufBytes()
           .Header(2, 0)
           .Tensor("v", {16}, kF32, 0)
           .Tensor("w", {8}, kF32, 32)
           .Align()
           .Zeros(64),
       "tensor w: overlaps the tensor before it, which ends at 64"},
      {GgufBytes()
           .Header(2, 0)
           .Tensor("w", {8}, kF32, 0)
           .Tensor("w", {8}, kF32, 32)
           .Align()
           .Zeros(64),
       "tensor w occurs twice"},
  };
  for (const Lie& lie : lies) {
    const absl::Status status = Parse(lie.file.bytes()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << lie.message;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("m.gguf: "), HasSubstr(lie.message)));
  }
}

// A file cut anywhere is refused, never read past its end.
TEST(GgufTest, EveryTruncationIsRefused) {
  GgufBytes file;
  file.Header(1, 2).Uint("a", 1).Key("t", GgufValueType::kString).Text("text");
  file.Tensor("w", {8, 2}, kF32, 0).Align().Zeros(64);
  ASSERT_TRUE(Parse(file.bytes()).ok());
  for (size_t size = 0; size < file.bytes().size(); ++size) {
    const std::string cut = file.bytes().substr(0, size);
    EXPECT_EQ(Parse(cut).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

TEST(GgufMetadataTest, GettersNameKeyAndWantedType) {
  const ScratchDirectory directory;
  GgufBytes file;
  file.Header(0, 2).Uint("n", 3).Key("i", GgufValueType::kInt32).Put(int32_t{-1});
  const auto opened = GgufFile::Open(directory.Write("m.gguf", file.bytes())).value();
  EXPECT_EQ(GgufReal(*opened, "n").value(), 3.0);
  EXPECT_EQ(GgufOr(GgufUint(*opened, "absent"), uint64_t{9}).value(), 9u);
  EXPECT_EQ(GgufUint(*opened, "absent").status().code(), absl::StatusCode::kNotFound);
  const absl::Status negative = GgufUint(*opened, "i").status();
  EXPECT_EQ(negative.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(negative.message()),
              HasSubstr("metadata key i must be a non-negative integer"));
  EXPECT_THAT(std::string(GgufString(*opened, "n").status().message()),
              HasSubstr("metadata key n must be a string"));
}

// One file of a model of `count` files, with one tensor, in whose first value stands `value`.
std::string SplitPart(uint32_t index, uint32_t count, const std::string& tensor, float value,
                      uint32_t tensors_of_all = 2) {
  GgufBytes file;
  file.Header(1, 4).Uint("split.no", index).Uint("split.count", count);
  file.Uint("split.tensors.count", tensors_of_all).Uint("general.number", index);
  file.Tensor(tensor, {8}, kF32, 0).Align().Put(value).Zeros(28);
  return file.bytes();
}

TEST(GgufSplitTest, FilesOfOneModelAreReadTogether) {
  const ScratchDirectory directory;
  const std::string first = directory.Write("m-00001-of-00002.gguf", SplitPart(0, 2, "one", 1.0f));
  directory.Write("m-00002-of-00002.gguf", SplitPart(1, 2, "two", 2.0f));
  const auto file = GgufFile::Open(first);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->path(), first);
  EXPECT_THAT((*file)->TensorNames(), ElementsAre("one", "two"));
  EXPECT_EQ(GgufUint(**file, "general.number").value(), 0u);
  for (const auto& [name, value] : {std::pair{"one", 1.0f}, {"two", 2.0f}}) {
    std::vector<float> values(1);
    ASSERT_TRUE(DecodeToFloat((*file)->Find(name).value(), 0, std::span(values)).ok());
    EXPECT_EQ(values[0], value);
  }
}

TEST(GgufSplitTest, ProblemsNameTheFile) {
  const auto error = [](const std::string& name, const std::string& first,
                        const std::string& second) {
    const ScratchDirectory directory;
    const std::string path = directory.Write(name, first);
    if (!second.empty()) directory.Write("m-00002-of-00002.gguf", second);
    const absl::Status status = GgufFile::Open(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const std::string one = SplitPart(0, 2, "one", 1.0f);
  const std::string two = SplitPart(1, 2, "two", 1.0f);
  const std::string name = "m-00001-of-00002.gguf";
  EXPECT_THAT(error(name, one, ""), HasSubstr("m-00002-of-00002.gguf does not exist"));
  EXPECT_THAT(error("m.gguf", one, two),
              HasSubstr("m.gguf: is the first of 2 files, but its name does not end with "
                        "-00001-of-00002.gguf"));
  EXPECT_THAT(error("m-00002-of-00002.gguf", two, ""),
              HasSubstr("is file 2 of 2 of a model: name the first, *-00001-of-00002.gguf"));
  EXPECT_THAT(error(name, one, one), HasSubstr("00002.gguf: metadata key split.no is 0, but the "
                                               "name says 1"));
  EXPECT_THAT(error(name, one, SplitPart(1, 2, "one", 1.0f)),
              HasSubstr("m-00002-of-00002.gguf: tensor one is in another file, too"));
  EXPECT_THAT(error(name, SplitPart(0, 2, "one", 1.0f, 3), two),
              HasSubstr("split.tensors.count is 3, but the files have 2"));
  EXPECT_THAT(error(name, SplitPart(0, 1001, "one", 1.0f), two),
              HasSubstr("split.count is 1001; the limit is 1000"));
  EXPECT_THAT(error(name, one, "GGUF"), HasSubstr("m-00002-of-00002.gguf: "));
  GgufBytes odd;
  odd.Header(0, 1).Key("split.count", GgufValueType::kInt32).Put<int32_t>(-2);
  EXPECT_THAT(error(name, odd.bytes(), two),
              HasSubstr("metadata key split.count must be a non-negative integer"));
}

}  // namespace
}  // namespace essor::model
