#include "worker/parallel/member_process.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

#include "worker/parallel/waiting.h"

namespace essor::worker {

std::unique_ptr<MemberProcess> MemberProcess::Start(bool own_network) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) return nullptr;
  const pid_t pid = fork();
  if (pid < 0) return nullptr;
  if (pid == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);  // no member outlives a test that crashed
    if (own_network && unshare(CLONE_NEWNET) != 0) _exit(1);
    dup2(sockets[1], STDIN_FILENO);
    dup2(sockets[1], STDOUT_FILENO);
    execl(ESSOR_MEMBER_BINARY, ESSOR_MEMBER_BINARY, nullptr);
    _exit(1);
  }
  close(sockets[1]);
  return std::unique_ptr<MemberProcess>(new MemberProcess(pid, sockets[0]));
}

MemberProcess::~MemberProcess() {
  Kill();
  close(socket_);
}

void MemberProcess::Signal(int signal) const {
  if (pid_ > 0) (void)kill(pid_, signal);
}

void MemberProcess::Kill() {
  if (pid_ <= 0) return;
  Signal(SIGKILL);
  (void)waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void MemberProcess::Send(const std::string& command) const {
  const std::string line = command + "\n";
  (void)!send(socket_, line.data(), line.size(), MSG_NOSIGNAL);
}

std::string MemberProcess::Answer(int timeout_ms) {
  const SteadyNanos end = SteadyNow() + timeout_ms * kMillisecond;
  for (;;) {
    if (const size_t newline = received_.find('\n'); newline != std::string::npos) {
      const std::string line = received_.substr(0, newline);
      received_.erase(0, newline + 1);
      return line;
    }
    const SteadyNanos left = end - SteadyNow();
    pollfd entry{socket_, POLLIN, 0};
    if (left <= 0 || poll(&entry, 1, static_cast<int>(left / kMillisecond) + 1) <= 0) return "";
    char buffer[4096];
    const ssize_t came = read(socket_, buffer, sizeof(buffer));
    if (came <= 0) return "";
    received_.append(buffer, static_cast<size_t>(came));
  }
}

bool MemberProcess::MakePlane(const std::string& ip, bool allow_shared_memory) {
  const std::string answer = Ask("plane " + ip + (allow_shared_memory ? " 1" : " 0"));
  const std::string prefix = "endpoint ";
  if (answer.rfind(prefix, 0) != 0) return false;
  endpoint_ = answer.substr(prefix.size());
  return true;
}

std::string MemberProcess::shm_name() const {
  std::istringstream words(endpoint_);
  std::string host_key;
  std::string name;
  words >> host_key >> name;
  return name;
}

std::string ConnectCommand(const Processes& members, uint64_t epoch, size_t rank, int timeout_ms) {
  std::ostringstream command;
  command << "connect " << epoch << " " << rank << " " << (2 << 20) << " " << timeout_ms << " "
          << members.size();
  for (const auto& member : members) command << " " << member->endpoint();
  return command.str();
}

std::vector<std::string> ConnectAll(const Processes& members, uint64_t epoch, int timeout_ms) {
  for (size_t rank = 0; rank < members.size(); ++rank) {
    members[rank]->Send(ConnectCommand(members, epoch, rank, timeout_ms));
  }
  std::vector<std::string> answers;
  for (const auto& member : members) answers.push_back(member->Answer(timeout_ms + 10000));
  return answers;
}

std::vector<std::string> AskAll(const Processes& members, const std::string& command,
                                int timeout_ms) {
  for (const auto& member : members) member->Send(command);
  std::vector<std::string> answers;
  for (const auto& member : members) answers.push_back(member->Answer(timeout_ms));
  return answers;
}

}  // namespace essor::worker
