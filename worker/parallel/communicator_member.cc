// One member process for communicator_processes_test: reads commands from stdin, answers each with
// one line on stdout.
//
//   plane IP 0|1                      makes the data plane (1: shared memory allowed)
//                                     -> endpoint HOST_KEY SHM_NAME TCP_ADDRESS   ("-" = empty)
//   connect EPOCH RANK MAX_BYTES TIMEOUT_MS N {HOST_KEY SHM_NAME TCP_ADDRESS} x N
//                                     group "all" of N ranks -> ok TRANSPORT
//   reduce FLOATS ROUNDS DEADLINE_MS  checked all-reduces -> ok
//   exercise                          every exchange once, checked -> ok
//   drop                              destroys the communicator -> ok
//   fds                               -> fds COUNT
//
// A failure answers: error CODE MILLISECONDS MESSAGE.
#include <dirent.h>

#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {
namespace {

std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }
std::string FromDash(const std::string& text) { return text == "-" ? "" : text; }

absl::Time In(int64_t milliseconds) {
  return Clock::Steady().Now() + absl::Milliseconds(milliseconds);
}

int64_t CountFds() {
  DIR* directory = opendir("/proc/self/fd");
  int64_t count = 0;
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

class Member {
 public:
  absl::StatusOr<std::string> Handle(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "plane") return MakePlane(words);
    if (command == "connect") return Connect(words);
    if (command == "reduce") return Reduce(words);
    if (command == "exercise") return Exercise();
    if (command == "fds") return "fds " + std::to_string(CountFds());
    if (command == "drop") {
      group_.reset();
      return "ok";
    }
    return absl::UnimplementedError("unknown command " + command);
  }

 private:
  absl::StatusOr<std::string> MakePlane(std::istringstream& words) {
    DataPlane::Options options;
    words >> options.listen_ip >> options.allow_shared_memory;
    ESSOR_ASSIGN_OR_RETURN(plane_, DataPlane::Create(options));
    const DataEndpoint endpoint = plane_->endpoint();
    return "endpoint " + OrDash(endpoint.host_key) + " " + OrDash(endpoint.shm_name) + " " +
           endpoint.tcp_address;
  }

  absl::StatusOr<std::string> Connect(std::istringstream& words) {
    EpochMembers members;
    uint64_t max_bytes = 0;
    int64_t timeout_ms = 0;
    size_t count = 0;
    words >> members.epoch >> rank_ >> max_bytes >> timeout_ms >> count;
    GroupSpec all{.name = "all", .ranks = {}};
    for (uint32_t i = 0; i < count; ++i) {
      DataEndpoint endpoint;
      words >> endpoint.host_key >> endpoint.shm_name >> endpoint.tcp_address;
      endpoint.host_key = FromDash(endpoint.host_key);
      endpoint.shm_name = FromDash(endpoint.shm_name);
      members.ranks.push_back({.worker_id = i + 1, .endpoint = endpoint});
      all.ranks.push_back(i);
    }
    group_.reset();
    ESSOR_ASSIGN_OR_RETURN(auto groups,
                           plane_->Connect(members, rank_, {all}, max_bytes, In(timeout_ms)));
    group_ = std::move(groups.front());
    return "ok " + group_->transport();
  }

  // Contributions are small whole numbers, so that the sum is exact.
  absl::StatusOr<std::string> Reduce(std::istringstream& words) {
    size_t floats = 0;
    int64_t rounds = 0;
    int64_t deadline_ms = 0;
    words >> floats >> rounds >> deadline_ms;
    group_->SetDeadline(In(deadline_ms));
    std::vector<float> data(floats);
    for (int64_t round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < floats; ++i) {
        data[i] = static_cast<float>(rank_ + (i + static_cast<size_t>(round)) % 1000);
      }
      ESSOR_RETURN_IF_ERROR(group_->AllReduceSum(data));
      const uint32_t n = group_->size();
      for (size_t i = 0; i < floats; ++i) {
        const size_t shared = (i + static_cast<size_t>(round)) % 1000;
        if (data[i] != static_cast<float>(n * shared + n * (n - 1) / 2)) {
          return absl::DataLossError("wrong sum");
        }
      }
    }
    return "ok";
  }

  absl::StatusOr<std::string> Exercise() {
    group_->SetDeadline(In(20000));
    const uint32_t n = group_->size();
    constexpr size_t kPart = 3000;
    const std::vector<std::byte> mine(kPart, std::byte(rank_ + 1));
    std::vector<std::byte> gathered(kPart * n);
    ESSOR_RETURN_IF_ERROR(group_->AllGather(mine, gathered));
    std::vector<std::byte> exchanged(kPart * n);
    const std::vector<uint64_t> sizes(n, kPart);
    ESSOR_RETURN_IF_ERROR(group_->AllToAllV(gathered, sizes, exchanged, sizes));
    std::vector<std::byte> last(kPart, std::byte(rank_ + 1));
    ESSOR_RETURN_IF_ERROR(group_->Broadcast(last, n - 1));
    ESSOR_RETURN_IF_ERROR(group_->Barrier());
    std::vector<std::byte> previous(kPart, std::byte(rank_));
    if (rank_ + 1 < n) ESSOR_RETURN_IF_ERROR(group_->Send(mine, rank_ + 1));
    if (rank_ > 0) ESSOR_RETURN_IF_ERROR(group_->Receive(previous, rank_ - 1));
    for (uint32_t member = 0; member < n; ++member) {
      // Everybody sends `gathered`, whose part for this rank is filled with its number.
      if (gathered[member * kPart + kPart - 1] != std::byte(member + 1) ||
          exchanged[member * kPart] != std::byte(rank_ + 1)) {
        return absl::DataLossError("wrong bytes from member " + std::to_string(member));
      }
    }
    if (last.back() != std::byte(n) || previous.back() != std::byte(rank_)) {
      return absl::DataLossError("wrong broadcast or message");
    }
    return "ok";
  }

  uint32_t rank_ = 0;
  std::unique_ptr<DataPlane> plane_;
  std::unique_ptr<Communicator> group_;
};

}  // namespace
}  // namespace essor::worker

int main() {
  essor::InitLogging({.process = "member"});  // to stderr: stdout carries the answers
  essor::worker::Member member;
  for (std::string line; std::getline(std::cin, line);) {
    const absl::Time start = essor::Clock::Steady().Now();
    const absl::StatusOr<std::string> answer = member.Handle(line);
    const int64_t elapsed = absl::ToInt64Milliseconds(essor::Clock::Steady().Now() - start);
    if (answer.ok()) {
      std::cout << *answer << std::endl;
    } else {
      std::cout << "error " << absl::StatusCodeToString(answer.status().code()) << " " << elapsed
                << " " << answer.status().message() << std::endl;
    }
  }
  return 0;
}
