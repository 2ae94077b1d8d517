// A child process that never outlives its parent.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace essor::client {

// How a child ended.
struct ExitStatus {
  int code = 0;                  // exit code when signal is 0
  int signal = 0;                // what killed it
  std::string ToString() const;  // "exit code 1", "signal 9"
};

// Owned by the thread that spawned it, which must live as long as the child: the kernel kills the
// child when that thread ends. Destruction kills and reaps.
class ChildProcess {
 public:
  // argv[0] is the path of the binary. The child inherits stderr; stdin and stdout are /dev/null.
  // It has a process group of its own (a terminal's Ctrl-C does not reach it) and no blocked
  // signals. NotFound naming the binary when it is not there.
  static absl::StatusOr<ChildProcess> Spawn(const std::vector<std::string>& argv);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // How it ended, nullopt while it runs.
  std::optional<ExitStatus> Poll();
  // Waits at most `timeout`.
  std::optional<ExitStatus> Wait(absl::Duration timeout);
  // No-op when it has ended.
  void Signal(int signal);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  void KillAndReap();

  pid_t pid_ = -1;
  std::optional<ExitStatus> exit_;
};

}  // namespace essor::client
