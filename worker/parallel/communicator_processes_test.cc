// Members as processes: what only processes can show. Shared memory handed over by descriptor,
// sudden death, stopped processes, network namespaces, nothing left behind.
#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/parallel/member_process.h"

namespace essor::worker {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// One process per entry; the entry says whether it may share memory.
Processes StartMembers(const std::vector<bool>& allow_shared_memory) {
  Processes members;
  for (const bool allow : allow_shared_memory) {
    members.push_back(MemberProcess::Start());
    EXPECT_NE(members.back(), nullptr);
    EXPECT_TRUE(members.back()->MakePlane("127.0.0.1", allow));
  }
  return members;
}

int64_t MillisecondsOf(const std::string& answer) {
  std::istringstream words(answer);
  std::string error;
  std::string code;
  int64_t milliseconds = -1;
  words >> error >> code >> milliseconds;
  return milliseconds;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Files with a name under /tmp or /dev/shm that the process has open or mapped.
std::vector<std::string> NamedFilesOf(pid_t pid) {
  std::vector<std::string> found;
  const std::string root = "/proc/" + std::to_string(pid);
  const auto check = [&](const std::string& path) {
    const std::string deleted = " (deleted)";  // how the kernel shows a file without a name
    const bool named = (path.find("/tmp/") == 0 || path.find("/dev/shm/") == 0) &&
                       (path.size() < deleted.size() ||
                        path.compare(path.size() - deleted.size(), deleted.size(), deleted) != 0);
    if (named && path.find(ESSOR_BINARY_DIR) != 0) found.push_back(path);
  };
  DIR* directory = opendir((root + "/fd").c_str());
  while (const dirent* entry = directory == nullptr ? nullptr : readdir(directory)) {
    char target[4096];
    const ssize_t length =
        readlink((root + "/fd/" + entry->d_name).c_str(), target, sizeof(target));
    if (length > 0) check(std::string(target, static_cast<size_t>(length)));
  }
  if (directory != nullptr) closedir(directory);
  std::istringstream maps(ReadFile(root + "/maps"));
  for (std::string line; std::getline(maps, line);) {
    const size_t slash = line.find('/');
    if (slash != std::string::npos) check(line.substr(slash));
  }
  return found;
}

struct Kind {
  std::string name;
  std::string transport;
  std::vector<bool> allow_shared_memory;
};

class ProcessesTest : public ::testing::TestWithParam<Kind> {
 protected:
  Processes Start() const { return StartMembers(GetParam().allow_shared_memory); }
  std::string connected() const { return "ok " + GetParam().transport; }
};

TEST_P(ProcessesTest, EveryExchangeWorks) {
  const Processes members = Start();
  ASSERT_THAT(ConnectAll(members, 1), Each(connected()));
  EXPECT_THAT(AskAll(members, "exercise"), Each("ok"));
  EXPECT_THAT(AskAll(members, "reduce 576 1000 50000"), Each("ok"));
  EXPECT_THAT(AskAll(members, "reduce 294912 20 50000"), Each("ok"));
}

TEST_P(ProcessesTest, AKilledMemberEndsTheGroupAndANewOneJoinsTheNextEpoch) {
  Processes members = Start();
  ASSERT_THAT(ConnectAll(members, 1), Each(connected()));
  ASSERT_THAT(AskAll(members, "reduce 576 10 20000"), Each("ok"));
  for (const auto& member : members) member->Send("reduce 576 100000000 60000");
  usleep(100000);  // in the middle of it
  const std::string dead_name = members.back()->shm_name();
  EXPECT_THAT(NamedFilesOf(members.back()->pid()), ::testing::IsEmpty());
  members.back()->Kill();

  // The survivors see it well within 2 s; one may see another survivor leave first.
  for (size_t i = 0; i + 1 < members.size(); ++i) {
    EXPECT_THAT(members[i]->Answer(2000),
                AllOf(StartsWith("error UNAVAILABLE"), HasSubstr("group all (epoch 1), all_reduce"),
                      HasSubstr("is gone")));
    EXPECT_THAT(members[i]->Ask("reduce 1 1 1000"), StartsWith("error UNAVAILABLE"));
  }
  if (dead_name != "-") {
    EXPECT_THAT(ReadFile("/proc/net/unix"), Not(HasSubstr(dead_name)));
  }

  members.back() = MemberProcess::Start();
  ASSERT_TRUE(members.back()->MakePlane("127.0.0.1", GetParam().allow_shared_memory.back()));
  ASSERT_THAT(ConnectAll(members, 2), Each(connected()));
  EXPECT_THAT(AskAll(members, "exercise"), Each("ok"));
}

TEST_P(ProcessesTest, AStoppedMemberIsAMissedDeadline) {
  const Processes members = Start();
  ASSERT_THAT(ConnectAll(members, 1), Each(connected()));
  ASSERT_THAT(AskAll(members, "reduce 576 10 20000"), Each("ok"));
  const size_t last = members.size() - 1;
  members[last]->Signal(SIGSTOP);
  for (size_t rank = 0; rank < last; ++rank) members[rank]->Send("reduce 576 1 500");
  for (size_t rank = 0; rank < last; ++rank) {
    const std::string answer = members[rank]->Answer();
    // With more than two, a survivor may first see another one leave.
    EXPECT_THAT(
        answer,
        AnyOf(AllOf(StartsWith("error DEADLINE_EXCEEDED"),
                    HasSubstr("group all (epoch 1), all_reduce: member " + std::to_string(last)),
                    HasSubstr("did not come in time")),
              AllOf(StartsWith("error UNAVAILABLE"), HasSubstr("is gone"))));
    if (rank == 0) {
      EXPECT_THAT(answer, StartsWith("error DEADLINE_EXCEEDED"));
    }
    EXPECT_GE(MillisecondsOf(answer), 500);
    EXPECT_LT(MillisecondsOf(answer), 2500);
  }
  // The group is over for the one that was stopped, too: what the others contributed before they
  // gave up may serve for one exchange, not for two.
  members[last]->Signal(SIGCONT);
  EXPECT_THAT(members[last]->Ask("reduce 576 2 20000"), StartsWith("error UNAVAILABLE"));
}

TEST_P(ProcessesTest, AMemberThatNeverComesIsNamed) {
  const Processes members = Start();
  const size_t last = members.size() - 1;
  for (size_t rank = 0; rank < last; ++rank) {
    members[rank]->Send(ConnectCommand(members, 1, rank, 700));
  }
  for (size_t rank = 0; rank < last; ++rank) {
    const std::string answer = members[rank]->Answer();
    EXPECT_THAT(answer, AllOf(StartsWith("error DEADLINE_EXCEEDED"), HasSubstr("epoch 1, rank"),
                              HasSubstr("with rank " + std::to_string(last))));
    EXPECT_LT(MillisecondsOf(answer), 2500);
  }
}

TEST_P(ProcessesTest, LateComersOfAnOldEpochAreRefused) {
  const Processes members = Start();
  ASSERT_THAT(ConnectAll(members, 3), Each(connected()));
  const size_t last = members.size() - 1;
  // Its own process has forgotten epoch 3, as after a restart: only the others can refuse it.
  Processes again;
  again.push_back(MemberProcess::Start());
  ASSERT_TRUE(again[0]->MakePlane("127.0.0.1", GetParam().allow_shared_memory[last]));
  std::ostringstream command;
  command << "connect 2 " << last << " " << (2 << 20) << " 5000 " << members.size();
  for (size_t rank = 0; rank < last; ++rank) command << " " << members[rank]->endpoint();
  command << " " << again[0]->endpoint();
  EXPECT_THAT(
      again[0]->Ask(command.str()),
      AllOf(StartsWith("error UNAVAILABLE"), HasSubstr("the epoch is over (it is at epoch 3)")));
  EXPECT_THAT(AskAll(members, "exercise"), Each("ok"));
}

TEST_P(ProcessesTest, ReformingLeaksNoDescriptors) {
  const Processes members = Start();
  std::vector<std::string> before;
  for (uint64_t epoch = 1; epoch <= 55; ++epoch) {
    ASSERT_THAT(ConnectAll(members, epoch), Each(connected()));
    ASSERT_THAT(AskAll(members, "reduce 16 2 20000"), Each("ok"));
    if (epoch == 5) before = AskAll(members, "fds");
  }
  EXPECT_EQ(AskAll(members, "fds"), before);
}

INSTANTIATE_TEST_SUITE_P(All, ProcessesTest,
                         ::testing::Values(Kind{"Shm2", "shm", {true, true}},
                                           Kind{"Shm3", "shm", {true, true, true}},
                                           Kind{"Tcp2", "tcp", {false, false}},
                                           Kind{"Mixed3", "mixed", {true, true, false}}),
                         [](const auto& parameters) { return parameters.param.name; });

TEST(CommunicatorProcessesTest, EightProcessesMoveOnFewCores) {
  const Processes members = StartMembers(std::vector<bool>(8, true));
  ASSERT_THAT(ConnectAll(members, 1), Each("ok shm"));
  EXPECT_THAT(AskAll(members, "reduce 576 1000 50000"), Each("ok"));
  EXPECT_THAT(AskAll(members, "reduce 294912 10 50000"), Each("ok"));
}

bool RunCommand(const std::string& command) { return std::system(command.c_str()) == 0; }

bool RunInNetworkOf(const MemberProcess& member, const std::string& command) {
  return RunCommand("nsenter --net=/proc/" + std::to_string(member.pid()) + "/ns/net " + command);
}

// Two hosts, as far as the network goes. The namespaces and their cable end with the processes.
TEST(CommunicatorProcessesTest, MembersInTwoNetworkNamespacesUseTcp) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to make network namespaces";
  if (!RunCommand("unshare --net true 2>/dev/null") || !RunCommand("ip -V >/dev/null 2>&1")) {
    GTEST_SKIP() << "needs the right to make network namespaces, and iproute2";
  }
  Processes members;
  for (int i = 0; i < 2; ++i) members.push_back(MemberProcess::Start(/*own_network=*/true));
  // An answer means that the process has entered its namespace.
  for (const auto& member : members) ASSERT_THAT(member->Ask("fds"), StartsWith("fds"));
  const std::string pids[2] = {std::to_string(members[0]->pid()),
                               std::to_string(members[1]->pid())};
  ASSERT_TRUE(RunCommand("nsenter --net=/proc/" + pids[0] +
                         "/ns/net ip link add essor0 type veth peer name essor0 netns " + pids[1]));
  for (int i = 0; i < 2; ++i) {
    const std::string ip = "10.77.0." + std::to_string(i + 1);
    ASSERT_TRUE(RunInNetworkOf(*members[i], "ip link set lo up"));
    ASSERT_TRUE(RunInNetworkOf(*members[i], "ip addr add " + ip + "/24 dev essor0"));
    ASSERT_TRUE(RunInNetworkOf(*members[i], "ip link set essor0 up"));
    // Shared memory is allowed: the host keys must tell that it cannot work.
    ASSERT_TRUE(members[i]->MakePlane(ip, true));
  }
  ASSERT_THAT(ConnectAll(members, 1), Each("ok tcp"));
  EXPECT_THAT(AskAll(members, "exercise"), Each("ok"));
  EXPECT_THAT(AskAll(members, "reduce 576 500 50000"), Each("ok"));

  members[0]->Send("reduce 576 100000000 60000");
  members[1]->Send("reduce 576 100000000 60000");
  usleep(50000);
  members[1]->Kill();
  EXPECT_THAT(members[0]->Answer(2000),
              AllOf(StartsWith("error UNAVAILABLE"), HasSubstr("member 1 (rank 1) is gone")));
}

}  // namespace
}  // namespace essor::worker
