#include "client/cli/logits_file.h"

#include <unistd.h>

#include <cstring>

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace essor::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

class LogitsFileTest : public testing::Test {
 protected:
  const ScratchDirectory scratch_;
  const std::string path_ = scratch_ / "logits.safetensors";
};

TEST_F(LogitsFileTest, RowsInAnyOrderOfSequencesGiveOneTensorEach) {
  auto file = LogitsFile::Create(path_, {2, 1}, 3);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Write(1, 0, Bytes({7, 8, 9})).ok());
  EXPECT_TRUE((*file)->Write(0, 0, Bytes({1, 2, 3})).ok());
  EXPECT_TRUE((*file)->Write(0, 1, Bytes({4, 5, 6})).ok());
  EXPECT_NE(access(path_.c_str(), F_OK), 0) << "not there before it is complete";
  ASSERT_TRUE((*file)->Finish().ok());

  const std::string bytes = ReadFile(path_);
  uint64_t header_size = 0;
  ASSERT_GE(bytes.size(), sizeof(header_size));
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  const auto header = nlohmann::json::parse(bytes.substr(8, header_size));
  EXPECT_EQ(header["logits.0"]["dtype"], "F32");
  EXPECT_EQ(header["logits.0"]["shape"], nlohmann::json({2, 3}));
  EXPECT_EQ(header["logits.0"]["data_offsets"], nlohmann::json({0, 24}));
  EXPECT_EQ(header["logits.1"]["shape"], nlohmann::json({1, 3}));
  EXPECT_EQ(header["logits.1"]["data_offsets"], nlohmann::json({24, 36}));
  std::vector<float> data(9);
  ASSERT_EQ(bytes.size(), 8 + header_size + 36);
  std::memcpy(data.data(), bytes.data() + 8 + header_size, 36);
  EXPECT_THAT(data, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(LogitsFileTest, MissingRowsAreAnErrorAndLeaveNothing) {
  {
    auto file = LogitsFile::Create(path_, {2}, 3);
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE((*file)->Write(0, 1, Bytes({4, 5, 6})).ok());
    const absl::Status end = (*file)->Finish();
    EXPECT_TRUE(absl::IsInternal(end));
    EXPECT_THAT(std::string(end.message()), HasSubstr("1 of 2 rows of logits came for sequence 0"));
  }
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
  EXPECT_NE(access((path_ + ".partial").c_str(), F_OK), 0);
}

TEST_F(LogitsFileTest, RowsOutsideTheTensorAreRefused) {
  auto file = LogitsFile::Create(path_, {2}, 3);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(absl::IsInternal((*file)->Write(0, 2, Bytes({1, 2, 3}))));
  EXPECT_TRUE(absl::IsInternal((*file)->Write(1, 0, Bytes({1, 2, 3}))));
  EXPECT_TRUE(absl::IsInternal((*file)->Write(0, 0, Bytes({1, 2}))));
}

TEST_F(LogitsFileTest, AnUnwritablePlaceIsNamed) {
  const auto file = LogitsFile::Create("/nonexistent/x.safetensors", {1}, 3);
  EXPECT_TRUE(absl::IsNotFound(file.status()));
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("/nonexistent/x.safetensors"));
}

}  // namespace
}  // namespace essor::cli
