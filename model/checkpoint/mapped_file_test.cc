#include "model/checkpoint/mapped_file.h"

#include <sys/stat.h>

#include <string>

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

TEST(MappedFileTest, ShowsTheWholeFile) {
  const ScratchDirectory directory;
  const auto file = MappedFile::Open(directory.Write("f", "abc")).value();
  ASSERT_EQ(file->bytes().size(), 3u);
  EXPECT_EQ(file->bytes()[2], std::byte{'c'});
  EXPECT_TRUE(MappedFile::Open(directory.Write("empty", "")).value()->bytes().empty());
}

TEST(MappedFileTest, AdviceChangesNoByte) {
  const ScratchDirectory directory;
  std::string text(100'000, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  const auto file = MappedFile::Open(directory.Write("f", text)).value();
  const auto check = [&] {
    for (size_t i = 0; i < text.size(); ++i) {
      ASSERT_EQ(file->bytes()[i], static_cast<std::byte>(text[i])) << i;
    }
  };
  check();
  for (const MemoryAdvice advice : {MemoryAdvice::kWillNeed, MemoryAdvice::kDontNeed}) {
    Advise(file->bytes().subspan(5, 50'000), advice);  // cuts pages at both ends
    Advise(file->bytes().subspan(7, 1), advice);
    Advise({}, advice);
    check();
  }
}

TEST(MappedFileTest, WhatIsNoFileIsAnErrorNamingThePath) {
  const ScratchDirectory directory;
  const absl::Status missing = MappedFile::Open(directory / "none").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("cannot open " + (directory / "none")));
  // A named pipe without a writer must not hang the caller.
  ASSERT_EQ(mkfifo((directory / "pipe").c_str(), 0600), 0);
  const absl::Status pipe = MappedFile::Open(directory / "pipe").status();
  EXPECT_EQ(pipe.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(pipe.message()), HasSubstr("pipe: not a regular file"));
}

}  // namespace
}  // namespace essor::model
