#include "model/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/output_file.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kNoSharding = ~uint64_t{0};

std::vector<std::string> FilesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

std::vector<std::byte> Pattern(size_t count, int seed) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(seed + 7 * i);
  return bytes;
}

const std::vector<TensorDeclaration>& Declarations() {
  static const auto* const list = new std::vector<TensorDeclaration>{
      {.name = "a", .dtype = DType::kBF16, .shape = {3, 5}},
      {.name = "b", .dtype = DType::kF32, .shape = {7}},
      {.name = "c", .dtype = DType::kF32, .shape = {2, 2, 2}},
  };
  return *list;
}
// Bytes of all of them, 30 + 28 + 32.
constexpr size_t kTotalBytes = 90;

// In pieces that cut tensors.
absl::Status AppendPieces(CheckpointWriter& writer, std::span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size(); i += 11) {
    const auto piece = bytes.subspan(i, std::min<size_t>(11, bytes.size() - i));
    if (absl::Status status = writer.Append(piece); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void ExpectContents(const Checkpoint& checkpoint, std::span<const std::byte> bytes) {
  EXPECT_THAT(checkpoint.TensorNames(), ElementsAre("a", "b", "c"));
  size_t position = 0;
  for (const TensorDeclaration& tensor : Declarations()) {
    const TensorView view = checkpoint.Find(tensor.name).value();
    EXPECT_EQ(view.dtype, tensor.dtype);
    EXPECT_EQ(view.shape, tensor.shape);
    EXPECT_TRUE(std::equal(view.data.begin(), view.data.end(), bytes.begin() + position));
    position += view.data.size();
  }
  EXPECT_EQ(position, bytes.size());
}

TEST(SafetensorsWriterTest, OneFileReadsBack) {
  const ScratchDirectory directory;
  const std::vector<std::byte> bytes = Pattern(kTotalBytes, 1);
  const auto writer =
      CreateSafetensorsWriter(directory.path(), Declarations(), kNoSharding).value();
  ASSERT_TRUE(AppendPieces(*writer, bytes).ok());
  EXPECT_THAT(FilesIn(directory.path()), ElementsAre("model.safetensors.partial"));
  ASSERT_TRUE(writer->Finish().ok());
  EXPECT_THAT(FilesIn(directory.path()), ElementsAre("model.safetensors"));
  const auto checkpoint = OpenSafetensors(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectContents(**checkpoint, bytes);
}

TEST(SafetensorsWriterTest, ShardsReadBackThroughTheIndex) {
  const ScratchDirectory directory;
  const std::vector<std::byte> bytes = Pattern(kTotalBytes, 2);
  const auto writer = CreateSafetensorsWriter(directory.path(), Declarations(), 60).value();
  ASSERT_TRUE(AppendPieces(*writer, bytes).ok());
  ASSERT_TRUE(writer->Finish().ok());
  EXPECT_THAT(FilesIn(directory.path()), UnorderedElementsAre("model-00001-of-00002.safetensors",
                                                              "model-00002-of-00002.safetensors",
                                                              "model.safetensors.index.json"));
  const auto checkpoint = OpenSafetensors(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectContents(**checkpoint, bytes);
}

TEST(SafetensorsWriterTest, QuantisedTypesAreRefused) {
  const ScratchDirectory directory;
  const absl::Status status =
      CreateSafetensorsWriter(directory.path(),
                              {{.name = "w", .dtype = DType::kQ8_0, .shape = {32}}}, kNoSharding)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor w: safetensors cannot store q8_0"));
}

TEST(GgufWriterTest, FileReadsBackWithItsMetadata) {
  const ScratchDirectory directory;
  const std::string path = directory / "m.gguf";
  const GgufMetadataList metadata = {
      {"general.architecture", std::string("llama")},
      {"flag", true},
      {"small", uint64_t{5}},
      {"large", uint64_t{1} << 40},
      {"negative", int64_t{-5}},
      {"real", 0.5},
      {"words", std::vector<std::string>{"a", "", "bc"}},
      {"numbers", std::vector<int64_t>{-1, int64_t{1} << 40}},
      {"flags", std::vector<bool>{true, false}},
      {"reals", std::vector<double>{}},
  };
  const std::vector<std::byte> bytes = Pattern(kTotalBytes, 3);
  const auto writer = CreateGgufWriter(path, metadata, Declarations()).value();
  ASSERT_TRUE(AppendPieces(*writer, bytes).ok());
  EXPECT_THAT(FilesIn(directory.path()), ElementsAre("m.gguf.partial"));
  ASSERT_TRUE(writer->Finish().ok());
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ExpectContents(**file, bytes);
  EXPECT_EQ((*file)->metadata().size(), metadata.size());
  for (const auto& [key, value] : metadata) EXPECT_EQ((*file)->metadata().at(key), value) << key;
  EXPECT_EQ(std::filesystem::file_size(path) % 32, 0u);
}

TEST(GgufWriterTest, WhatTheFormatCannotHoldIsRefused) {
  const ScratchDirectory directory;
  const auto error = [&](std::vector<TensorDeclaration> tensors, GgufMetadataList metadata = {}) {
    const absl::Status status =
        CreateGgufWriter(directory / "m.gguf", metadata, std::move(tensors)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const TensorDeclaration w = {.name = "w", .dtype = DType::kF32, .shape = {2}};
  EXPECT_THAT(error({w, w}), HasSubstr("tensor w occurs twice"));
  EXPECT_THAT(error({{.name = "w", .dtype = DType::kQ8_0, .shape = {2, 48}}}),
              HasSubstr("tensor w: rows of 48 elements do not divide into q8_0 blocks of 32"));
  EXPECT_THAT(error({{.name = "w", .dtype = DType::kF32, .shape = {1, 1, 1, 1, 1}}}),
              HasSubstr("tensor w: GGUF needs 1 to 4 dimensions"));
  EXPECT_THAT(error({{.name = "w", .dtype = DType::kF32, .shape = {0}}}),
              HasSubstr("none of them 0"));
  EXPECT_THAT(error({w}, {{"k", true}, {"k", false}}), HasSubstr("metadata key k occurs twice"));
  EXPECT_THAT(FilesIn(directory.path()), ElementsAre());
}

TEST(CheckpointWriterTest, TooFewAndTooManyBytesAreErrors) {
  const ScratchDirectory directory;
  const std::vector<std::byte> bytes = Pattern(kTotalBytes, 4);
  for (const bool gguf : {false, true}) {
    const auto writer =
        gguf ? CreateGgufWriter(directory / "m.gguf", {}, Declarations()).value()
             : CreateSafetensorsWriter(directory.path(), Declarations(), kNoSharding).value();
    ASSERT_TRUE(writer->Append(std::span(bytes).first(40)).ok());
    const absl::Status early = writer->Finish();
    EXPECT_EQ(early.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(early.message()), HasSubstr("tensor b: 18 of 28 bytes are missing"));
    ASSERT_TRUE(writer->Append(std::span(bytes).subspan(40)).ok());
    const absl::Status late = writer->Append(std::span(bytes).first(1));
    EXPECT_EQ(late.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(late.message()), HasSubstr("more bytes than were declared"));
  }
  // Neither was finished, so nothing is left.
  EXPECT_THAT(FilesIn(directory.path()), ElementsAre());
}

TEST(OutputFileTest, UnwritablePlacesAreErrorsNamingThePath) {
  const ScratchDirectory directory;
  const absl::Status missing = WriteTextFile(directory / "no/such/file", "x");
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("no/such/file"));
  const absl::Status under_file = WriteTextFile(directory.Write("file", "x") + "/y", "x");
  EXPECT_EQ(under_file.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(under_file.message()), HasSubstr("cannot create"));
}

// The partial file's name leads to /dev/full, where every write finds the disk full.
TEST(OutputFileTest, AFullDiskIsAnErrorAndLeavesNothing) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "needs /dev/full";
  const ScratchDirectory directory;
  std::filesystem::create_symlink("/dev/full", directory / "m.partial");
  const absl::Status status = WriteTextFile(directory / "m", "text");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("cannot write " + (directory / "m.partial")));
  EXPECT_THAT(FilesIn(directory.path()), ElementsAre());
}

}  // namespace
}  // namespace essor::model
