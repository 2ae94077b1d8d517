// For tests: a communicator_member process and the conversation with it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

namespace essor::worker {

// Killed and reaped by the destructor.
class MemberProcess {
 public:
  // With a network namespace of its own if `own_network`. Null when it cannot be started.
  static std::unique_ptr<MemberProcess> Start(bool own_network = false);
  ~MemberProcess();

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  // SIGKILL, and waits until the process is gone.
  void Kill();

  void Send(const std::string& command) const;
  // The next line; "" when none comes in time or the process is gone.
  std::string Answer(int timeout_ms = 30000);
  std::string Ask(const std::string& command, int timeout_ms = 30000) {
    Send(command);
    return Answer(timeout_ms);
  }
  // Makes the data plane; false when that failed.
  bool MakePlane(const std::string& ip, bool allow_shared_memory);
  // "HOST_KEY SHM_NAME TCP_ADDRESS", as `connect` takes it.
  const std::string& endpoint() const { return endpoint_; }
  std::string shm_name() const;

 private:
  MemberProcess(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  pid_t pid_;
  int socket_;            // its stdin and stdout
  std::string received_;  // beyond the last complete line
  std::string endpoint_;
};

// The members of one epoch, in rank order.
using Processes = std::vector<std::unique_ptr<MemberProcess>>;

// Sends `connect` of that epoch to every member, then collects the answers.
std::vector<std::string> ConnectAll(const Processes& members, uint64_t epoch,
                                    int timeout_ms = 20000);
std::string ConnectCommand(const Processes& members, uint64_t epoch, size_t rank, int timeout_ms);
// The same command to every member, then all answers.
std::vector<std::string> AskAll(const Processes& members, const std::string& command,
                                int timeout_ms = 60000);

}  // namespace essor::worker
