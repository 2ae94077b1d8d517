// essor-worker: one per node. Knows only the coordinator's address.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/str_format.h"
#include "common/config.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/version.h"
#include "worker/engine/cpu_share.h"
#include "worker/engine/local_ranks.h"
#include "worker/health/health_server.h"
#include "worker/parallel/communicator.h"
#include "worker/session/session.h"

namespace essor::worker {
namespace {

constexpr int kBadUsage = 2;

struct Flags {
  std::string coordinator = "127.0.0.1:50052";
  std::string listen_health = "127.0.0.1:9100";
  std::string listen_data = "127.0.0.1";
  std::string device = "auto";
  uint32_t threads = 0;
  uint32_t devices = 8;
  uint64_t device_memory = 0;
  bool no_shared_memory = false;
  bool log_json = false;
  std::string log_level = "info";
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--coordinator", flags.coordinator, "Cluster port of the coordinator, host:port")
      ->capture_default_str();
  app.add_option("--listen-health", flags.listen_health,
                 "Address of /livez, /readyz and /metrics; port 0 chooses one, \"off\" for none")
      ->capture_default_str();
  app.add_option("--listen-data", flags.listen_data,
                 "IP address at which workers of other hosts reach this one")
      ->capture_default_str();
  app.add_option("--device", flags.device, "What holds the ranks: auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--threads", flags.threads,
                 "CPU threads of this worker; 0 = its share of the host's cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--devices", flags.devices, "Most ranks this worker takes on the CPU")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--device-memory", flags.device_memory,
                 "Memory the plan may use, e.g. 8GB; 0 = 0.8 of what the host has free")
      ->transform(CLI::AsSizeValue(true))
      ->capture_default_str();
  app.add_flag("--no-shared-memory", flags.no_shared_memory,
               "Exchange over TCP even with workers of this host");
  app.add_flag("--log-json", flags.log_json, "Log JSON objects, one a line");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn or error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}))
      ->capture_default_str();
}

// MemAvailable of /proc/meminfo in bytes, 0 when it cannot be read.
uint64_t AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  uint64_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return kib * 1024;
  }
  return 0;
}

std::string RandomIncarnation() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

std::string MetricsText(const SessionHealth& health) {
  const auto metric = [](const char* name, const char* type, const char* help, uint64_t value) {
    return absl::StrFormat("# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, help, name, type, name,
                           value);
  };
  return metric("essor_worker_joined", "gauge", "1 while the stream to the coordinator stands.",
                health.joined) +
         metric("essor_worker_ready", "gauge", "1 while this worker's ranks can run steps.",
                health.serving) +
         metric("essor_worker_epoch", "gauge", "Epoch of the last assignment.", health.epoch) +
         metric("essor_worker_steps_total", "counter", "Steps this worker has completed.",
                health.steps_total) +
         metric("essor_worker_weight_bytes", "gauge", "Bytes of packed weights held.",
                health.weight_bytes);
}

// Waits for SIGTERM and SIGINT on a thread of its own; they are blocked everywhere else.
void ForwardSignals(const sigset_t& signals, Session* session) {
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    spdlog::info("signal {}", signal);
    session->Stop();
  }
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "essor-worker: %s\n", std::string(status.message()).c_str());
  return EXIT_FAILURE;
}

int Serve(const Flags& flags) {
  if (flags.device == "cuda") {
    return Fail(absl::FailedPreconditionError(
        "--device cuda: this build has no CUDA kernels; use --device cpu"));
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto data_plane = DataPlane::Create(
      {.listen_ip = flags.listen_data, .allow_shared_memory = !flags.no_shared_memory});
  if (!data_plane.ok()) return Fail(data_plane.status());
  auto ranks = LocalRanks::Create({.num_threads = flags.threads}, data_plane->get());
  const uint64_t memory =
      flags.device_memory > 0 ? flags.device_memory : AvailableMemory() / 10 * 8;
  auto session = Session::Create({.coordinator = flags.coordinator,
                                  .build = BuildId(),
                                  .incarnation = RandomIncarnation(),
                                  .host = HostName(),
                                  .num_devices = flags.devices,
                                  .memory_bytes = memory,
                                  .num_cpus = static_cast<uint32_t>(AllowedCpus().size())},
                                 ranks.get(), data_plane->get());
  std::unique_ptr<HealthServer> health_server;
  if (flags.listen_health != "off") {
    const SessionHealth& health = session->health();
    auto server = HealthServer::Start(
        flags.listen_health, {.ready = [&health] { return health.serving && !health.leaving; },
                              .metrics = [&health] { return MetricsText(health); }});
    if (!server.ok()) return Fail(server.status());
    health_server = *std::move(server);
    spdlog::info("listening health={}:{}",
                 flags.listen_health.substr(0, flags.listen_health.rfind(':')),
                 health_server->port());
  }
  std::thread(ForwardSignals, signals, session.get()).detach();
  const absl::Status status = session->Run();
  // The signal thread may still wait; ending the process ends it.
  if (!status.ok()) return Fail(status);
  return EXIT_SUCCESS;
}

int Main(int argc, char** argv) {
  CLI::App app{"Holds ranks of a model and runs the steps that the coordinator issues.",
               "essor-worker"};
  Flags flags;
  AddFlags(app, flags);
  AddStandardOptions(&app);
  if (const auto code = ParseOptions(&app, argc, argv)) return *code;
  if (const absl::Status usable = ParseHostPort(flags.coordinator).status(); !usable.ok()) {
    Fail(usable);
    return kBadUsage;
  }
  InitLogging({.process = "worker", .json = flags.log_json, .level = flags.log_level});
  const int code = Serve(flags);
  std::fflush(nullptr);
  std::_Exit(code);  // not exit(): the detached signal thread still refers to the session
}

}  // namespace
}  // namespace essor::worker

int main(int argc, char** argv) { return essor::worker::Main(argc, argv); }
