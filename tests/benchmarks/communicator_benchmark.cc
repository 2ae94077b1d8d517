// Latency of the exchanges between two processes on one machine, over shared memory and over TCP.
// Prints one JSON object per line: transport, operation, bytes, min_us, p50_us, p99_us and, for
// shared memory, the ratio of TCP's p50 to it. The minimum is what the exchange costs; the others
// are what the machine makes of it. Bounded: a few seconds in all.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/waiting.h"

namespace essor::worker {
namespace {

// Endpoints travel over the socket pair as fixed text.
struct EndpointText {
  char host_key[160] = {};
  char shm_name[96] = {};
  char tcp_address[64] = {};
};

EndpointText ToText(const DataEndpoint& endpoint) {
  EndpointText text;
  std::snprintf(text.host_key, sizeof(text.host_key), "%s", endpoint.host_key.c_str());
  std::snprintf(text.shm_name, sizeof(text.shm_name), "%s", endpoint.shm_name.c_str());
  std::snprintf(text.tcp_address, sizeof(text.tcp_address), "%s", endpoint.tcp_address.c_str());
  return text;
}

DataEndpoint FromText(const EndpointText& text) {
  return {.host_key = text.host_key, .shm_name = text.shm_name, .tcp_address = text.tcp_address};
}

struct Joined {
  std::unique_ptr<DataPlane> plane;
  std::unique_ptr<Communicator> group;
};

absl::StatusOr<Joined> Join(uint32_t rank, int socket, bool allow_shared_memory) {
  Joined joined;
  auto plane = DataPlane::Create({.allow_shared_memory = allow_shared_memory});
  if (!plane.ok()) return plane.status();
  joined.plane = *std::move(plane);
  const EndpointText own = ToText(joined.plane->endpoint());
  EndpointText other;
  if (write(socket, &own, sizeof(own)) != static_cast<ssize_t>(sizeof(own)) ||
      recv(socket, &other, sizeof(other), MSG_WAITALL) != static_cast<ssize_t>(sizeof(other))) {
    return absl::UnavailableError("the other process is gone");
  }
  EpochMembers members{.epoch = 1, .ranks = {{}, {}}};
  members.ranks[rank] = {.worker_id = rank + 1, .endpoint = joined.plane->endpoint()};
  members.ranks[1 - rank] = {.worker_id = 2 - rank, .endpoint = FromText(other)};
  const absl::Time deadline = Clock::Steady().Now() + absl::Seconds(20);
  auto groups = joined.plane->Connect(members, rank, {{"bench", {0, 1}}}, 2 << 20, deadline);
  if (!groups.ok()) return groups.status();
  joined.group = std::move(groups->front());
  joined.group->SetDeadline(Clock::Steady().Now() + absl::Seconds(60));
  return joined;
}

struct Case {
  std::string operation;
  size_t bytes;
  int rounds;
};

// Decode of SmolLM2's hidden size, a larger model's, a prefill of 512 tokens.
const std::vector<Case>& Cases() {
  static const auto* const kCases = new std::vector<Case>{
      {"all_reduce", 2304, 20000}, {"all_reduce", 8192, 20000}, {"all_reduce", 1179648, 300},
      {"all_to_all", 2304, 20000}, {"all_to_all", 8192, 20000}, {"all_to_all", 1179648, 300},
      {"all_gather", 8192, 20000}, {"barrier", 0, 20000},       {"send_receive", 8192, 10000}};
  return *kCases;
}

absl::Status RunOnce(const Case& run, Communicator& group, std::vector<float>& data,
                     std::vector<std::byte>& received) {
  const auto bytes = std::as_writable_bytes(std::span(data)).first(run.bytes);
  if (run.operation == "all_reduce") {
    return group.AllReduceSum(std::span(data).first(run.bytes / sizeof(float)));
  }
  if (run.operation == "all_to_all") {
    const uint64_t parts[2] = {run.bytes / 2, run.bytes / 2};
    return group.AllToAllV(bytes, parts, std::span(received).first(run.bytes), parts);
  }
  if (run.operation == "all_gather") {
    return group.AllGather(bytes, std::span(received).first(2 * run.bytes));
  }
  if (run.operation == "barrier") return group.Barrier();
  // There and back: half of it is one way.
  const uint32_t other = 1 - group.index();
  absl::Status status = group.index() == 0 ? group.Send(bytes, other) : group.Receive(bytes, other);
  if (!status.ok()) return status;
  return group.index() == 0 ? group.Receive(bytes, other) : group.Send(bytes, other);
}

struct Latency {
  double min_us;
  double p50_us;
  double p99_us;
};

// By case number.
absl::StatusOr<std::vector<Latency>> Measure(Communicator& group) {
  std::vector<Latency> results;
  std::vector<float> data(1 << 19, 1e-30f);
  std::vector<std::byte> received(4 << 20);
  for (const Case& run : Cases()) {
    std::vector<double> microseconds;
    microseconds.reserve(static_cast<size_t>(run.rounds));
    for (int round = 0; round < run.rounds; ++round) {
      const SteadyNanos start = SteadyNow();
      const absl::Status status = RunOnce(run, group, data, received);
      if (!status.ok()) return status;
      microseconds.push_back(static_cast<double>(SteadyNow() - start) / 1000);
      // Sums grow with every round; they must stay finite and normal.
      if (round % 64 == 0) std::fill(data.begin(), data.end(), 1e-30f);
    }
    std::sort(microseconds.begin(), microseconds.end());
    const double scale = run.operation == "send_receive" ? 0.5 : 1;
    results.push_back({.min_us = scale * microseconds.front(),
                       .p50_us = scale * microseconds[microseconds.size() / 2],
                       .p99_us = scale * microseconds[microseconds.size() * 99 / 100]});
  }
  return results;
}

absl::StatusOr<std::vector<Latency>> MeasureBetweenProcesses(bool allow_shared_memory) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) {
    return absl::UnavailableError("socketpair");
  }
  const pid_t child = fork();
  if (child < 0) return absl::UnavailableError("fork");
  const uint32_t rank = child == 0 ? 1 : 0;
  if (child == 0) (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  close(sockets[1 - rank]);
  auto run = [&]() -> absl::StatusOr<std::vector<Latency>> {
    absl::StatusOr<Joined> joined = Join(rank, sockets[rank], allow_shared_memory);
    if (!joined.ok()) return joined.status();
    return Measure(*joined->group);
  };
  auto results = run();
  if (child == 0) _exit(results.ok() ? 0 : 1);
  close(sockets[0]);
  (void)waitpid(child, nullptr, 0);
  return results;
}

int Main() {
  const auto shm = MeasureBetweenProcesses(/*allow_shared_memory=*/true);
  const auto tcp = MeasureBetweenProcesses(/*allow_shared_memory=*/false);
  if (!shm.ok() || !tcp.ok()) {
    std::fprintf(stderr, "%s %s\n", shm.status().ToString().c_str(),
                 tcp.status().ToString().c_str());
    return 1;
  }
  for (size_t i = 0; i < Cases().size(); ++i) {
    const Case& run = Cases()[i];
    const auto print = [&](const char* transport, const Latency& result) {
      std::printf(
          "{\"transport\":\"%s\",\"operation\":\"%s\",\"bytes\":%zu,\"min_us\":%.2f,"
          "\"p50_us\":%.2f,\"p99_us\":%.2f",
          transport, run.operation.c_str(), run.bytes, result.min_us, result.p50_us, result.p99_us);
    };
    print("shm", (*shm)[i]);
    std::printf(",\"tcp_over_shm\":%.1f}\n", (*tcp)[i].p50_us / (*shm)[i].p50_us);
    print("tcp", (*tcp)[i]);
    std::printf("}\n");
  }
  return 0;
}

}  // namespace
}  // namespace essor::worker

int main() { return essor::worker::Main(); }
