#include "client/cluster/local_cluster.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "simdjson.h"

namespace essor::client {
namespace {

constexpr absl::Duration kListenTimeout = absl::Seconds(120);  // a large model's files are checked
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
constexpr absl::Duration kDrainGrace = absl::Milliseconds(500);
constexpr absl::Duration kShutdownGrace = absl::Milliseconds(200);  // of a worker told to go
constexpr absl::Duration kStopGrace = absl::Seconds(3);
// Instances that form and break again and again, before giving up on ever serving a step.
constexpr uint64_t kFormationsMax = 16;
constexpr absl::Duration kStatusTimeout = absl::Seconds(2);

// Positions in the coordinator's argv.
enum CoordinatorArgument { kBinary, kListenGrpc, kListenHttp, kListenCluster, kPortsFile };

// A file in the temporary directory, gone with the object.
class TemporaryFile {
 public:
  static absl::StatusOr<TemporaryFile> Create() {
    std::error_code error;
    const std::filesystem::path directory = std::filesystem::temp_directory_path(error);
    if (error) return absl::InternalError("there is no directory for temporary files");
    std::string path = directory / "essor-ports-XXXXXX";
    const int fd = mkstemp(path.data());
    if (fd < 0) {
      return absl::InternalError(absl::StrFormat("cannot create a file in %s", directory.string()));
    }
    close(fd);
    return TemporaryFile(path);
  }
  TemporaryFile(TemporaryFile&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// Memory of a local worker: four fifths of what the host has free, divided evenly.
absl::StatusOr<uint64_t> ShareOfMemory(uint32_t num_workers) {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::string rest;
  uint64_t kib = 0;
  while (file >> key >> kib && std::getline(file, rest)) {
    if (key == "MemAvailable:") return kib * 1024 / 5 * 4 / num_workers;
  }
  return absl::NotFoundError("/proc/meminfo has no MemAvailable: say --device-memory");
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const Options& options,
                                                                  const StopFn& stop) {
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(options));
  ESSOR_RETURN_IF_ERROR(cluster->StartCoordinator(stop));
  ESSOR_RETURN_IF_ERROR(cluster->StartWorkers());
  cluster->client_ = InferenceClient::Connect(cluster->grpc_address_);
  return cluster;
}

LocalCluster::~LocalCluster() { Stop(); }

absl::Status LocalCluster::StartCoordinator(const StopFn& stop) {
  ESSOR_ASSIGN_OR_RETURN(const TemporaryFile ports_file, TemporaryFile::Create());
  coordinator_.name = "coordinator";
  std::vector<std::string>& argv = coordinator_.argv;
  argv = {options_.bin_directory + "/essor-coordinator",
          "--listen-grpc=" + options_.listen_grpc,
          "--listen-http=" + options_.listen_http,
          "--listen-cluster=" + options_.listen_cluster,
          "--ports-file=" + ports_file.path(),
          "--workers=" + absl::StrCat(options_.num_workers),
          "--log-level=" + options_.log_level};
  if (options_.log_json) argv.push_back("--log-json");
  argv.insert(argv.end(), options_.coordinator_flags.begin(), options_.coordinator_flags.end());
  ESSOR_ASSIGN_OR_RETURN(coordinator_.child, ChildProcess::Spawn(argv));

  const absl::Time deadline = absl::Now() + kListenTimeout;
  while (!ReadPorts(ports_file.path()).ok()) {
    if (const auto exit = coordinator_.child->Poll()) {
      return absl::FailedPreconditionError(
          absl::StrFormat("the coordinator ended with %s", exit->ToString()));
    }
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError("the coordinator does not listen after 120 s");
    }
    if (stop && stop()) return absl::CancelledError("stopped before the coordinator listened");
    absl::SleepFor(kPollInterval);
  }
  // A restarted coordinator has to be found at the same places.
  argv[kListenGrpc] = "--listen-grpc=" + grpc_address_;
  argv[kListenHttp] = "--listen-http=" + http_address_;
  argv[kListenCluster] = "--listen-cluster=" + cluster_address_;
  argv.erase(argv.begin() + kPortsFile);
  return absl::OkStatus();
}

absl::Status LocalCluster::ReadPorts(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto get = [&](const char* key, std::string& out) {
    std::string_view value;
    if (root[key].get(value) != simdjson::SUCCESS) return false;
    out = std::string(value);
    return true;
  };
  if (parser.parse(text.str()).get(root) != simdjson::SUCCESS || !get("grpc", grpc_address_) ||
      !get("http", http_address_) || !get("cluster", cluster_address_)) {
    return absl::NotFoundError("the ports file is not complete");
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::StartWorkers() {
  uint64_t memory = options_.worker_memory_bytes;
  if (memory == 0) {
    ESSOR_ASSIGN_OR_RETURN(memory, ShareOfMemory(options_.num_workers));
  }
  for (uint32_t i = 0; i < options_.num_workers; ++i) {
    Supervised worker;
    worker.name = "worker";
    worker.argv = {options_.bin_directory + "/essor-worker", "--coordinator=" + cluster_address_,
                   "--listen-health=off", absl::StrCat("--device-memory=", memory),
                   "--log-level=" + options_.log_level};
    if (options_.log_json) worker.argv.push_back("--log-json");
    worker.argv.insert(worker.argv.end(), options_.worker_flags.begin(),
                       options_.worker_flags.end());
    ESSOR_ASSIGN_OR_RETURN(worker.child, ChildProcess::Spawn(worker.argv));
    workers_.push_back(std::move(worker));
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::WaitReady(const std::function<void(const std::string&)>& on_progress,
                                     const StopFn& stop) {
  std::string last;
  while (!stop || !stop()) {
    ESSOR_RETURN_IF_ERROR(SuperviseChildren());
    const auto cluster = client_->GetCluster(kStatusTimeout);
    if (cluster.ok()) {
      if (cluster->state() == v1::INSTANCE_STATE_READY) {
        MarkReady();
        return absl::OkStatus();
      }
      if (cluster->epoch() > kFormationsMax) {
        return absl::FailedPreconditionError(absl::StrFormat(
            "the instance was formed %d times and broke each time", cluster->epoch()));
      }
      if (cluster->detail() != last) on_progress(last = cluster->detail());
    }
    absl::SleepFor(kPollInterval);
  }
  return absl::CancelledError("stopped before the cluster was ready");
}

void LocalCluster::MarkReady() {
  coordinator_.history.was_ready = true;
  for (Supervised& worker : workers_) worker.history.was_ready = true;
}

absl::Status LocalCluster::Supervise() {
  ESSOR_RETURN_IF_ERROR(SuperviseChildren());
  KillLostWorkers();
  return absl::OkStatus();
}

absl::Status LocalCluster::SuperviseChildren() {
  const absl::Time now = absl::Now();
  ESSOR_RETURN_IF_ERROR(SuperviseChild(coordinator_, now));
  for (Supervised& worker : workers_) ESSOR_RETURN_IF_ERROR(SuperviseChild(worker, now));
  return absl::OkStatus();
}

absl::Status LocalCluster::SuperviseChild(Supervised& supervised, absl::Time now) {
  const auto exit = supervised.child->Poll();
  if (!exit.has_value()) return absl::OkStatus();
  if (!supervised.restart_at.has_value()) {
    supervised.history.killed = exit->signal != 0;
    supervised.restart_at = RestartTime(supervised.history, now);
    if (!supervised.restart_at.has_value()) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "the %s ended with %s before the model was ready", supervised.name, exit->ToString()));
    }
    spdlog::warn("{} pid={} ended with {}, starting it again", supervised.name,
                 supervised.child->pid(), exit->ToString());
  }
  if (now < *supervised.restart_at) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(supervised.child, ChildProcess::Spawn(supervised.argv));
  spdlog::info("{} pid={} started", supervised.name, supervised.child->pid());
  supervised.restart_at.reset();
  supervised.history.restarts.push_back(now);
  return absl::OkStatus();
}

void LocalCluster::KillLostWorkers() {
  const auto cluster = client_->GetCluster(kStatusTimeout);
  if (!cluster.ok()) return;  // the coordinator is away; its own supervision deals with that
  std::set<pid_t> listed;
  for (const v1::WorkerInfo& worker : cluster->workers()) {
    listed.insert(static_cast<pid_t>(worker.pid()));
  }
  std::set<pid_t> running;
  for (Supervised& worker : workers_) {
    if (!worker.child->Poll().has_value()) running.insert(worker.child->pid());
  }
  for (const pid_t pid : lost_workers_.Update(coordinator_.child->pid(), listed, running)) {
    spdlog::warn("worker pid={} was given up by the coordinator, replacing it", pid);
    for (Supervised& worker : workers_) {
      if (worker.child->pid() == pid) worker.child->Signal(SIGKILL);
    }
  }
}

bool LocalCluster::WaitCoordinatorEnded(absl::Duration timeout) {
  return coordinator_.child->Wait(timeout).has_value();
}

void LocalCluster::Stop() {
  if (!coordinator_.child.has_value()) return;
  // A coordinator without requests ends at the first signal and sends its workers away; one that
  // has some gives them up at the second.
  const absl::Time deadline = absl::Now() + kStopGrace;
  coordinator_.child->Signal(SIGTERM);
  if (!coordinator_.child->Wait(kDrainGrace).has_value()) {
    coordinator_.child->Signal(SIGTERM);
    coordinator_.child->Wait(kStopGrace - kDrainGrace);
  }
  // Likewise: the first asks for leave of a coordinator that is no longer there.
  for (int i = 0; i < 2; ++i) {
    for (Supervised& worker : workers_) {
      if (!worker.child->Wait(i == 0 ? kShutdownGrace : absl::ZeroDuration()).has_value()) {
        worker.child->Signal(SIGTERM);
      }
    }
  }
  for (Supervised& worker : workers_) worker.child->Wait(deadline - absl::Now());
  workers_.clear();  // kills what is left
  coordinator_.child.reset();
}

}  // namespace essor::client
