// essor-coordinator: reads flags and the model, runs the coordinator until a signal ends it.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/tenant_weight.h"
#include "common/version.h"
#include "coordinator/coordinator.h"
#include "coordinator/planning.h"
#include "model/plan/byte_size.h"
#include "model/plan/kv_kinds.h"
#include "model/source/model_source.h"
#include "model/spec/families.h"

namespace essor::coordinator {
namespace {

constexpr int kBadUsage = 2;
// Logits that one step may bring back from the workers.
constexpr uint64_t kLogitsBytesPerStep = 8 << 20;
constexpr absl::Duration kPoll = absl::Milliseconds(100);
// After the second signal: what streams get to end with an error.
constexpr absl::Duration kAbortGrace = absl::Seconds(5);

struct Flags {
  std::string model;
  PlanningOptions planning;
  std::string device_memory;
  std::string served_model_name;
  std::string listen_grpc = "127.0.0.1:50051";
  std::string listen_http = "127.0.0.1:8000";
  std::string listen_cluster = "127.0.0.1:50052";
  uint32_t max_queued_requests = 1024;
  uint32_t max_running_requests = 64;
  std::string prefix_cache = "all";
  uint32_t reserve_new_tokens = 1024;
  uint32_t target_step_ms = 0;
  std::vector<std::string> tenant_weight_texts;
  std::map<std::string, double> tenant_weights;  // of those
  uint32_t step_timeout_s = 60;
  std::string ports_file;
  bool log_json = false;
  std::string log_level = "info";
};

void AddOptions(CLI::App* app, Flags* flags) {
  const auto add = [app](const char* name, auto& value, const char* help) {
    return app->add_option(name, value, help)->capture_default_str();
  };
  add("--model", flags->model,
      "Model to serve (required): a Hugging Face directory or a .gguf file");
  add("--served-model-name", flags->served_model_name, "Name that clients use")
      ->default_str("the directory's name");
  add("--plan", flags->planning.plan, "Parallel plan, e.g. tp=2,ep=2")->default_str("chosen");
  add("--workers", flags->planning.num_workers,
      "Workers to wait for; 0 = one per rank of the plan");
  add("--listen-grpc", flags->listen_grpc, "Address of the gRPC API; port 0 picks a free one");
  add("--listen-http", flags->listen_http, "Address of the OpenAI API, health and metrics");
  add("--listen-cluster", flags->listen_cluster, "Address that workers dial");
  add("--max-queued-requests", flags->max_queued_requests,
      "Requests that may wait beyond those that run");
  add("--max-running-requests", flags->max_running_requests, "Requests that may run at once")
      ->check(CLI::Range(1u, 65536u));
  add("--max-step-tokens", flags->planning.limits.max_step_tokens, "Token budget of one step")
      ->check(CLI::Range(1u, 1u << 20));
  add("--block-tokens", flags->planning.limits.block_tokens, "Tokens per KV block")
      ->check(CLI::Range(1u, 4096u));
  add("--max-context", flags->planning.limits.max_context_tokens,
      "Longest sequence in tokens; 0 = the model's");
  add("--device-memory", flags->device_memory, "Most memory a rank may use, e.g. 80GB")
      ->default_str("what its worker offers");
  add("--dtype", flags->planning.dtype, "Arithmetic and storage of weights")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}));
  add("--kv-dtype", flags->planning.kv_dtype,
      "Storage of keys and values (auto: float32 on CPUs); fp8 and int8 take a byte each and round")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "fp8", "int8"}));
  add("--draft-layers", flags->planning.draft_layers,
      "Layers that guess tokens ahead (MTP): load holds them, though nothing drafts with them yet")
      ->check(CLI::IsMember({"skip", "load"}));
  add("--prefix-cache", flags->prefix_cache,
      "Who may find the prompts of others in the KV cache: all, those of one tenant, or nobody")
      ->check(CLI::IsMember({"all", "tenant", "off"}));
  add("--reserve-new-tokens", flags->reserve_new_tokens,
      "New tokens that KV blocks are promised for when a request begins; beyond them it may be put "
      "back for a while when memory is short");
  add("--target-step-ms", flags->target_step_ms,
      "Milliseconds that a step may take; prompts are cut to fit. 0 = twice what it takes without");
  add("--tenant-weight", flags->tenant_weight_texts,
      "NAME=WEIGHT, a tenant's share against the others' 1, from 0.001 to 1000; several with "
      "commas "
      "or flags of their own")
      ->allow_extra_args(false)
      ->delimiter(',');
  add("--step-timeout", flags->step_timeout_s, "Seconds after which a step is given up")
      ->check(CLI::Range(1u, 86400u));
  add("--ports-file", flags->ports_file, "Write the addresses listened on to this file, as JSON");
  add("--log-level", flags->log_level, "Least important lines that are logged")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}));
  app->add_flag("--log-json", flags->log_json, "Log one JSON object per line (default: text)");
}

// One sentence on stderr for a person; 1 as the exit code.
int Fail(const absl::Status& status) {
  std::cerr << "essor-coordinator: " << std::string(status.message()) << "\n";
  return 1;
}

// What CLI11 cannot check by itself; sets what is derived.
absl::Status CheckFlags(Flags* flags) {
  // Not a required option of CLI11, which would not look into the config file for it.
  if (flags->model.empty()) return absl::InvalidArgumentError("--model is required");
  if (!flags->planning.plan.empty()) {
    ESSOR_RETURN_IF_ERROR(model::ParallelPlan::Parse(flags->planning.plan).status());
  }
  ESSOR_ASSIGN_OR_RETURN(flags->tenant_weights, ParseTenantWeights(flags->tenant_weight_texts));
  if (!flags->device_memory.empty()) {
    ESSOR_ASSIGN_OR_RETURN(flags->planning.device_memory_bytes,
                           model::ParseByteSize(flags->device_memory));
  }
  for (const std::string& address :
       {flags->listen_grpc, flags->listen_http, flags->listen_cluster}) {
    ESSOR_RETURN_IF_ERROR(ParseHostPort(address).status());
  }
  return absl::OkStatus();
}

// More sequences than requests: one request may ask for several continuations.
uint32_t NumSlots(const Flags& flags) {
  return std::max(flags.max_running_requests, kMaxContinuations);
}

ServedModel MakeServedModel(const model::ModelSource& source, const InstancePlan& instance,
                            const Flags& flags) {
  ServedModel served;
  served.name = flags.served_model_name.empty() ? source.name : flags.served_model_name;
  served.family = source.spec.family;
  served.num_parameters = source.spec.NumParameters();
  served.weight_format = InfoOf(source.stored).name;
  served.fingerprint = source.fingerprint;
  served.created_unix_s = absl::ToUnixSeconds(absl::Now());
  served.limits.eos_tokens = source.spec.eos_tokens;
  served.limits.vocab_size = source.spec.vocab_size;
  served.limits.max_context_tokens = instance.limits.max_context_tokens;
  // Only defaults that a client could have asked for itself.
  const model::GenerationDefaults& defaults = source.generation;
  const double temperature = defaults.temperature.value_or(1.0);
  if (temperature >= 0 && temperature <= 2) served.limits.default_temperature = temperature;
  const double top_p = defaults.top_p.value_or(1.0);
  if (top_p > 0 && top_p <= 1) served.limits.default_top_p = top_p;
  served.limits.default_top_k = std::max(defaults.top_k.value_or(0), 0);
  served.tokenizer = source.tokenizer.get();
  served.chat_template = source.chat_template.get();
  return served;
}

Coordinator::Options MakeOptions(const Flags& flags, const InstancePlan& instance,
                                 const model::ModelSource& source) {
  const model::ServingLimits& limits = instance.limits;
  const std::string plan = instance.plan.ToString();
  Coordinator::Options options;
  options.listen_grpc = flags.listen_grpc;
  options.listen_http = flags.listen_http;
  options.listen_cluster = flags.listen_cluster;

  Driver::Options& driver = options.driver;
  driver.membership.num_workers = instance.num_workers;
  driver.membership.num_ranks = instance.plan.NumRanks();
  driver.membership.build = BuildId();
  driver.membership.weights_prefix =
      absl::StrCat(source.fingerprint, "/", plan, "/", flags.planning.dtype,
                   "/drafts=", flags.planning.draft_layers);
  driver.membership.capacity = MakeCapacity(flags.planning, instance, source);

  const uint64_t row_bytes = source.spec.vocab_size * sizeof(float);
  driver.scheduler = {.max_running_requests = flags.max_running_requests,
                      .max_queued_requests = flags.max_queued_requests,
                      .num_groups = instance.plan.dp,
                      .num_stages = instance.plan.pp,
                      .num_slots = limits.max_sequences,
                      .max_step_tokens = limits.max_step_tokens,
                      .block_tokens = limits.block_tokens,
                      .max_logits_rows = static_cast<uint32_t>(
                          std::max<uint64_t>(kLogitsBytesPerStep / row_bytes, 1)),
                      .kinds = model::KvKindsOf(source.spec, limits.max_context_tokens),
                      .prefix_cache = flags.prefix_cache != "off",
                      .share_cache = flags.prefix_cache == "tenant" ? Scheduler::ShareCache::kTenant
                                                                    : Scheduler::ShareCache::kAll,
                      .reserve_new_tokens = flags.reserve_new_tokens,
                      .target_step_time = absl::Milliseconds(flags.target_step_ms),
                      .tenant_weights = flags.tenant_weights};
  driver.assignment = {.model_path = source.path,
                       .model_fingerprint = source.fingerprint,
                       .plan = plan,
                       .dtype = flags.planning.dtype,
                       .draft_layers = flags.planning.draft_layers,
                       .block_tokens = limits.block_tokens,
                       .max_step_tokens = limits.max_step_tokens,
                       .max_sequences = limits.max_sequences,
                       .max_context_tokens = limits.max_context_tokens,
                       .kv_dtype = NameOf(limits.kv_type)};
  driver.ranks_per_stage = instance.plan.RanksPerStage();
  driver.answering_ranks.clear();
  for (uint32_t group = 0; group < instance.plan.dp; ++group) {
    driver.answering_ranks.push_back((instance.plan.pp - 1) * driver.ranks_per_stage +
                                     group * (driver.ranks_per_stage / instance.plan.dp));
  }
  driver.step_timeout = absl::Seconds(flags.step_timeout_s);
  return options;
}

// Written under another name first, so that a reader never sees half of it.
absl::Status WritePortsFile(const Coordinator& coordinator, const std::string& path) {
  const std::string json = absl::StrCat(R"({"grpc":")", coordinator.grpc_address(), R"(","http":")",
                                        coordinator.http_address(), R"(","cluster":")",
                                        coordinator.cluster_address(), "\"}\n");
  const std::string temporary = path + ".partial";
  std::ofstream file(temporary);
  file << json;
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) return absl::UnavailableError("cannot write the ports file " + path);
  return absl::OkStatus();
}

// A signal of `signals`, or nullopt after kPoll.
bool WaitForSignal(const sigset_t& signals) {
  const timespec timeout = absl::ToTimespec(kPoll);
  return sigtimedwait(&signals, nullptr, &timeout) > 0;
}

// Until a first signal has drained the coordinator or a second one has ended the streams.
absl::Status Serve(Coordinator* coordinator, const sigset_t& signals) {
  int num_signals = 0;
  absl::Time abort_deadline = absl::InfiniteFuture();
  while (true) {
    if (WaitForSignal(signals)) {
      ++num_signals;
      if (num_signals == 1) {
        coordinator->Drain();
      } else {
        spdlog::warn("a second signal: ending the streams");
        coordinator->AbortRequests();
        abort_deadline = std::min(abort_deadline, Clock::Steady().Now() + kAbortGrace);
      }
    }
    coordinator->Poll();
    if (!coordinator->failure().ok()) return coordinator->failure();
    if (num_signals > 0 && coordinator->drained()) return absl::OkStatus();
    if (Clock::Steady().Now() > abort_deadline) return absl::OkStatus();
  }
}

int Run(Flags flags, const sigset_t& signals) {
  InitLogging({.process = "coordinator", .json = flags.log_json, .level = flags.log_level});
  flags.planning.limits.max_sequences = NumSlots(flags);
  // Every running sequence decodes each step, so the budget must hold them all.
  flags.planning.limits.max_step_tokens =
      std::max(flags.planning.limits.max_step_tokens, NumSlots(flags));
  const auto draft_layers = model::ParseDraftLayers(flags.planning.draft_layers);
  if (!draft_layers.ok()) return Fail(draft_layers.status());
  const auto source = model::ModelSource::Open(flags.model, *draft_layers);
  if (!source.ok()) return Fail(source.status());
  const auto instance = PlanInstance(flags.planning, **source);
  if (!instance.ok()) return Fail(instance.status());
  const ServedModel served = MakeServedModel(**source, *instance, flags);
  spdlog::info("model={} family={} parameters={} plan={} workers={}", LogSafe(served.name),
               served.family, served.num_parameters, instance->plan.ToString(),
               instance->num_workers);
  auto coordinator = Coordinator::Start(MakeOptions(flags, *instance, **source), &served);
  if (!coordinator.ok()) return Fail(coordinator.status());
  if (flags.ports_file.empty()) {
    std::cerr << "gRPC listens on " << (*coordinator)->grpc_address() << "\n"
              << "HTTP listens on http://" << (*coordinator)->http_address() << "\n"
              << "workers dial " << (*coordinator)->cluster_address() << "\n";
  } else {
    const absl::Status written = WritePortsFile(**coordinator, flags.ports_file);
    if (!written.ok()) return Fail(written);
  }
  const absl::Status end = Serve(coordinator->get(), signals);
  return end.ok() ? 0 : Fail(end);
}

int Main(int argc, char** argv) {
  // Blocked before any thread exists: only Serve() takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  CLI::App app("Serves one model: takes requests, drives the workers", "essor-coordinator");
  Flags flags;
  AddOptions(&app, &flags);
  AddStandardOptions(&app);
  if (const std::optional<int> code = ParseOptions(&app, argc, argv)) return *code;
  const absl::Status usable = CheckFlags(&flags);
  if (!usable.ok()) {
    Fail(usable);
    return kBadUsage;
  }
  return Run(std::move(flags), signals);
}

}  // namespace
}  // namespace essor::coordinator

int main(int argc, char** argv) { return essor::coordinator::Main(argc, argv); }
