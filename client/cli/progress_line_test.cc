#include "client/cli/progress_line.h"

#include <cstdlib>

#include "gtest/gtest.h"

namespace essor::cli {
namespace {

const absl::Time kNow = absl::UnixEpoch();

// What a sequence of calls wrote.
class ProgressLineTest : public testing::Test {
 protected:
  void SetUp() override { stream_ = open_memstream(&text_, &size_); }
  void TearDown() override {
    std::fclose(stream_);
    std::free(text_);
  }
  std::string Written() {
    std::fflush(stream_);
    return {text_, size_};
  }

  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* stream_ = nullptr;
};

TEST_F(ProgressLineTest, ATerminalShowsOneLineThatIsRemovedAtTheEnd) {
  {
    ProgressLine line("x", stream_, true);
    line.Show("1 %", kNow);
    line.Show("2 %", kNow);
  }
  EXPECT_EQ(Written(), "\r\033[Kx: 1 %\r\033[Kx: 2 %\r\033[K");
}

TEST_F(ProgressLineTest, AFileGetsALineASecondAndNoneTwice) {
  {
    ProgressLine line("x", stream_, false);
    line.Show("1 %", kNow);
    line.Show("2 %", kNow + absl::Milliseconds(999));
    line.Show("3 %", kNow + absl::Seconds(1));
    line.Show("3 %", kNow + absl::Seconds(5));
  }
  EXPECT_EQ(Written(), "x: 1 %\nx: 3 %\n");
}

}  // namespace
}  // namespace essor::cli
