#include "client/cluster/child_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace essor::client {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(10);

TEST(ChildProcessTest, ReportsExitCodesAndSignals) {
  auto child = ChildProcess::Spawn({"/bin/sh", "-c", "exit 3"});
  ASSERT_TRUE(child.ok()) << child.status();
  const auto code = child->Wait(kPatience);
  ASSERT_TRUE(code.has_value());
  EXPECT_EQ(code->ToString(), "exit code 3");

  child = ChildProcess::Spawn({"/bin/sleep", "60"});
  ASSERT_TRUE(child.ok());
  EXPECT_FALSE(child->Poll().has_value());
  child->Signal(SIGTERM);
  const auto signal = child->Wait(kPatience);
  ASSERT_TRUE(signal.has_value());
  EXPECT_EQ(signal->ToString(), "signal 15");
  child->Signal(SIGTERM);  // ended: no effect
}

TEST(ChildProcessTest, AMissingBinaryIsNamed) {
  const auto child = ChildProcess::Spawn({"/nonexistent/essor-worker"});
  EXPECT_TRUE(absl::IsNotFound(child.status()));
  EXPECT_EQ(std::string(child.status().message()),
            "cannot run /nonexistent/essor-worker: No such file or directory");
}

TEST(ChildProcessTest, DestructionKillsAndReaps) {
  pid_t pid = 0;
  {
    auto child = ChildProcess::Spawn({"/bin/sleep", "60"});
    ASSERT_TRUE(child.ok());
    pid = child->pid();
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

// A terminal's Ctrl-C goes to the foreground group.
TEST(ChildProcessTest, TheChildHasAProcessGroupOfItsOwn) {
  auto child = ChildProcess::Spawn({"/bin/sleep", "60"});
  ASSERT_TRUE(child.ok());
  // The group is set between fork and exec.
  const absl::Time deadline = absl::Now() + kPatience;
  while (getpgid(child->pid()) == getpgrp() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(getpgid(child->pid()), child->pid());
}

// The child of a parent that is killed without a chance to clean up dies too: its end closes the
// pipe that it holds.
TEST(ChildProcessTest, TheChildDiesWithItsParent) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    close(ends[0]);
    auto child = ChildProcess::Spawn({"/bin/sleep", "60"});
    const char started = child.ok() ? 'y' : 'n';
    if (write(ends[1], &started, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  close(ends[1]);
  char started = 0;
  ASSERT_EQ(read(ends[0], &started, 1), 1);
  EXPECT_EQ(started, 'y');
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  alarm(30);  // a child that lives on would hold the pipe for a minute
  EXPECT_EQ(read(ends[0], &started, 1), 0);
  alarm(0);
  close(ends[0]);
}

}  // namespace
}  // namespace essor::client
