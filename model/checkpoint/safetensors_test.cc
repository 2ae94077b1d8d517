#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/safetensors_header.h"

namespace essor::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string file;
  for (int shift = 0; shift < 64; shift += 8) {
    file.push_back(static_cast<char>(length >> shift & 0xff));
  }
  return file + rest;
}

// A file with this header and `data_bytes` bytes 0, 1, 2, ... after it.
std::string FileOf(const std::string& header, size_t data_bytes) {
  std::string data;
  for (size_t i = 0; i < data_bytes; ++i) data.push_back(static_cast<char>(i));
  return WithLength(header.size(), header + data);
}

absl::StatusOr<std::vector<TensorEntry>> Parse(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span(file)), "m.safetensors");
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  uint64_t begin, uint64_t end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":[", begin, ",", end, "]}");
}

TEST(SafetensorsTest, ReadsTensorsInAnyOrderOfTheHeader) {
  const ScratchDirectory directory;
  directory.Write("model.safetensors", FileOf("{" + Entry("b", "BF16", "[2,2]", 12, 20) + "," +
                                                  Entry("a", "F32", "[3]", 0, 12) + "," +
                                                  R"("__metadata__":{"format":"pt"}})"
                                                  "   ",
                                              20));
  const auto checkpoint = OpenSafetensors(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->TensorNames(), ElementsAre("a", "b"));
  const TensorView b = (*checkpoint)->Find("b").value();
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_THAT(b.shape, ElementsAre(2, 2));
  ASSERT_EQ(b.data.size(), 8u);
  EXPECT_EQ(b.data[0], std::byte{12});
  EXPECT_EQ(b.file, directory / "model.safetensors");
  EXPECT_TRUE((*checkpoint)->Contains("a"));
  EXPECT_FALSE((*checkpoint)->Contains("c"));
  const absl::Status missing = (*checkpoint)->Find("c").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("no tensor c"));
}

TEST(SafetensorsTest, AcceptsScalarsAndEmptyTensors) {
  const auto entries = Parse(FileOf(
      "{" + Entry("scalar", "I64", "[]", 0, 8) + "," + Entry("none", "F32", "[0,4]", 8, 8) + "}",
      8));
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ(entries->size(), 2u);
}

// Files of quantised models open; only the tensors that Essor cannot read are refused, by name.
TEST(SafetensorsTest, UnsupportedTypesAreRefusedWhenLookedUp) {
  const ScratchDirectory directory;
  directory.Write("model.safetensors", FileOf("{" + Entry("w", "F8_E5M2", "[4]", 0, 4) + "," +
                                                  Entry("v", "F32", "[1]", 4, 8) + "}",
                                              8));
  const auto checkpoint = OpenSafetensors(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Contains("w"));
  EXPECT_TRUE((*checkpoint)->Find("v").ok());
  const absl::Status status = (*checkpoint)->Find("w").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("model.safetensors: tensor w"), HasSubstr("F8_E5M2")));
}

struct Lie {
  std::string file;
  std::string message;
};

TEST(SafetensorsTest, EveryLieNamesFileAndTensor) {
  const std::string good = Entry("w", "F32", "[2]", 0, 8);
  const std::vector<Lie> lies = {
      {"", "0 bytes long, too short"},
      {"1234567", "7 bytes long, too short"},
      {WithLength(100, "{}"), "a header of 100 bytes does not fit into a file of 10"},
      {WithLength(~uint64_t{0}, "{}"), "over the limit of 100000000"},
      {WithLength(100'000'001, "{}"), "over the limit of 100000000"},
      {FileOf("", 0), "not a JSON object"},
      {FileOf("[1]", 0), "not a JSON object"},
      {FileOf("{\"w\":", 0), "not a JSON object"},
      {FileOf("{\"w\":1}", 0), "tensor w: its header entry must be an object"},
      {FileOf("{\"__metadata__\":{\"a\":1}}", 0), "__metadata__ a must be a string"},
      {FileOf("{\"w\":{}}", 0), "tensor w: dtype is missing"},
      {FileOf("{\"w\":{\"dtype\":\"F32\"}}", 0), "tensor w: shape is missing"},
      {FileOf("{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4), "data_offsets is missing"},
      {FileOf("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4),
       "tensor w: data_offsets must hold two integers"},
      {FileOf("{\"w\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4),
       "tensor w: shape must hold non-negative integers"},
      {FileOf("{\"w\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,4]}}", 4),
       "tensor w: shape must be an array"},
      {FileOf("{" + Entry("w", "F31", "[2]", 0, 8) + "}", 8), "tensor w: unknown dtype F31"},
      {FileOf("{" + Entry("w", "F32", "[2]", 0, 12) + "}", 12),
       "tensor w: its shape and dtype need 8 bytes, data_offsets give 12"},
      {FileOf("{" + good + "}", 4), "tensor w: data_offsets 0 to 8 lie outside the 4 bytes"},
      {FileOf("{" + Entry("w", "F32", "[0]", 8, 0) + "}", 8), "tensor w: data_offsets 8 to 0"},
      {FileOf("{" + good + "}", 9), "the tensors end at byte 8 of the data, the file at 9"},
      {FileOf("{" + Entry("w", "F32", "[2]", 4, 12) + "}", 12),
       "tensor w: begins at byte 4 of the data, but there is a gap from 0"},
      {FileOf("{" + good + "," + Entry("v", "F32", "[2]", 4, 12) + "}", 12),
       "tensor v: begins at byte 4 of the data, but the tensor before it ends at 8"},
      {FileOf("{" + good + "," + good + "}", 8), "tensor w: occurs twice"},
      {FileOf("{" + Entry("w", "F32", "[4294967296,4294967296,4294967296]", 0, 8) + "}", 8),
       "tensor w: its shape is too large"},
      {FileOf("{" + Entry("w", "F32", "[4611686018427387904,2]", 0, 8) + "}", 8),
       "tensor w: its shape is too large"},
      {FileOf("{" + Entry("w", "F4", "[3]", 0, 2) + "}", 2), "tensor w: its shape and dtype need"},
  };
  for (const Lie& lie : lies) {
    const absl::Status status = Parse(lie.file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << lie.message;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("m.safetensors: "), HasSubstr(lie.message)));
  }
}

// Nesting is limited by the JSON parser; its depth does not use the stack.
TEST(SafetensorsTest, DeepNestingIsRefused) {
  const std::string deep = "{\"w\":" + std::string(1'000'000, '[') + "}";
  const absl::Status status = Parse(FileOf(deep, 0)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not a JSON object"));
}

TEST(SafetensorsTest, DirectoryWithoutAModelIsNotFound) {
  const ScratchDirectory directory;
  const absl::Status status = OpenSafetensors(directory.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has neither model.safetensors nor model.safetensors.index.json"));
}

class ShardedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_.Write("one.safetensors", FileOf("{" + Entry("a", "F32", "[1]", 0, 4) + "}", 4));
    directory_.Write("two.safetensors", FileOf("{" + Entry("b", "F32", "[2]", 0, 8) + "," +
                                                   Entry("unlisted", "F32", "[1]", 8, 12) + "}",
                                               12));
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> OpenWithIndex(const std::string& weight_map) {
    directory_.Write("model.safetensors.index.json", "{\"weight_map\":" + weight_map + "}");
    return OpenSafetensors(directory_.path());
  }
  ScratchDirectory directory_;
};

TEST_F(ShardedTest, ReadsWhatTheIndexLists) {
  const auto checkpoint = OpenWithIndex(R"({"a":"one.safetensors","b":"two.safetensors"})");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->TensorNames(), ElementsAre("a", "b"));
  EXPECT_EQ((*checkpoint)->Find("b").value().file, directory_ / "two.safetensors");
}

TEST_F(ShardedTest, IndexesThatLieAreRefused) {
  const std::vector<Lie> lies = {
      {R"({"a":"two.safetensors"})", "places tensor a in two.safetensors, which has none"},
      {R"({"a":"three.safetensors"})", "names three.safetensors for tensor a: cannot open"},
      {R"({"a":"../one.safetensors"})", "weight_map of tensor a must be a file name"},
      {R"({"a":7})", "weight_map of tensor a must be a file name"},
      {R"({"a":"one.safetensors","a":"one.safetensors"})", "tensor a occurs twice"},
      {"{}", "names no tensor"},
      {"[]", "has no object weight_map"},
  };
  for (const Lie& lie : lies) {
    const absl::Status status = OpenWithIndex(lie.file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << lie.message;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("model.safetensors.index.json"), HasSubstr(lie.message)));
  }
}

TEST(FingerprintTest, DependsOnNamesShapesAndContents) {
  const auto fingerprint = [](const std::string& header, size_t bytes, char first) {
    const ScratchDirectory directory;
    std::string file = FileOf(header, bytes);
    for (size_t i = file.size() - bytes; i < file.size(); ++i) file[i] = first;
    directory.Write("model.safetensors", file);
    return OpenSafetensors(directory.path()).value()->Fingerprint();
  };
  const std::string base = fingerprint("{" + Entry("w", "F32", "[2,1]", 0, 8) + "}", 8, 'a');
  EXPECT_EQ(base.size(), 32u);
  EXPECT_EQ(base, fingerprint("{" + Entry("w", "F32", "[2,1]", 0, 8) + "}", 8, 'a'));
  EXPECT_NE(base, fingerprint("{" + Entry("v", "F32", "[2,1]", 0, 8) + "}", 8, 'a'));
  EXPECT_NE(base, fingerprint("{" + Entry("w", "F32", "[1,2]", 0, 8) + "}", 8, 'a'));
  EXPECT_NE(base, fingerprint("{" + Entry("w", "I32", "[2,1]", 0, 8) + "}", 8, 'a'));
  EXPECT_NE(base, fingerprint("{" + Entry("w", "F32", "[2,1]", 0, 8) + "}", 8, 'b'));
}

}  // namespace
}  // namespace essor::model
