#include "client/cli/status_text.h"

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "client/cli/json_output.h"

namespace essor::cli {
namespace {

constexpr double kGigabyte = 1e9;

std::string StateName(v1::InstanceState state) {
  constexpr std::string_view kPrefix = "INSTANCE_STATE_";
  const std::string& name = v1::InstanceState_Name(state);  // empty for one of a newer server
  return name.size() > kPrefix.size() ? absl::AsciiStrToLower(name.substr(kPrefix.size()))
                                      : "unknown";
}

void AppendWorkers(const v1::GetClusterResponse& cluster, std::string& text) {
  text += "\nworker  host                  pid  devices  heard s ago\n";
  for (const v1::WorkerInfo& worker : cluster.workers()) {
    absl::StrAppendFormat(&text, "%6d  %-16s %8d %8d %12.1f\n", worker.worker_id(), worker.host(),
                          worker.pid(), worker.num_devices(), worker.seconds_since_heard());
  }
}

void AppendRanks(const v1::GetClusterResponse& cluster, std::string& text) {
  text += "\n  rank  stage  worker  loaded  weights GB    KV GB\n";
  for (const v1::RankInfo& rank : cluster.ranks()) {
    absl::StrAppendFormat(&text, "%6d %6d %7d %6.0f%% %11.3f %8.3f\n", rank.rank(), rank.stage(),
                          rank.worker_id(), rank.load_fraction() * 100,
                          static_cast<double>(rank.weight_bytes()) / kGigabyte,
                          static_cast<double>(rank.kv_bytes()) / kGigabyte);
  }
}

void WriteModel(const v1::ModelInfo& model, JsonOutput& json) {
  json.Key("model");
  json.StartObject();
  json.Field("name", std::string_view(model.name()));
  json.Field("family", std::string_view(model.family()));
  json.Field("max_context_tokens", model.max_context_tokens());
  json.Field("vocab_size", model.vocab_size());
  json.Field("num_parameters", uint64_t{model.num_parameters()});
  json.Field("weight_format", std::string_view(model.weight_format()));
  json.Field("fingerprint", std::string_view(model.fingerprint()));
  json.Field("created_unix_s", int64_t{model.created_unix_s()});
  json.EndObject();
}

void WriteWorkers(const v1::GetClusterResponse& cluster, JsonOutput& json) {
  json.Key("workers");
  json.StartArray();
  for (const v1::WorkerInfo& worker : cluster.workers()) {
    json.StartObject();
    json.Field("worker_id", uint64_t{worker.worker_id()});
    json.Field("host", std::string_view(worker.host()));
    json.Field("pid", int64_t{worker.pid()});
    json.Field("build", std::string_view(worker.build()));
    json.Field("num_devices", worker.num_devices());
    json.Field("seconds_since_heard", worker.seconds_since_heard());
    json.EndObject();
  }
  json.EndArray();
}

void WriteRanks(const v1::GetClusterResponse& cluster, JsonOutput& json) {
  json.Key("ranks");
  json.StartArray();
  for (const v1::RankInfo& rank : cluster.ranks()) {
    json.StartObject();
    json.Field("rank", rank.rank());
    json.Field("worker_id", uint64_t{rank.worker_id()});
    json.Field("stage", rank.stage());
    json.Field("load_fraction", rank.load_fraction());
    json.Field("weight_bytes", uint64_t{rank.weight_bytes()});
    json.Field("kv_bytes", uint64_t{rank.kv_bytes()});
    json.EndObject();
  }
  json.EndArray();
}

}  // namespace

std::string ClusterTable(const v1::GetClusterResponse& cluster) {
  std::string text;
  absl::StrAppendFormat(&text, "state     %s%s%s\n", StateName(cluster.state()),
                        cluster.detail().empty() ? "" : ": ", cluster.detail());
  absl::StrAppendFormat(&text, "model     %s (%s, %s, %.3g parameters)\n", cluster.model().name(),
                        cluster.model().family(), cluster.model().weight_format(),
                        static_cast<double>(cluster.model().num_parameters()));
  absl::StrAppendFormat(&text, "plan      %s, epoch %d\n", cluster.plan(), cluster.epoch());
  absl::StrAppendFormat(&text, "requests  %d running, %d waiting\n", cluster.requests_running(),
                        cluster.requests_waiting());
  absl::StrAppendFormat(&text, "KV blocks %d of %d used\n", cluster.kv_blocks_used(),
                        cluster.kv_blocks_total());
  absl::StrAppendFormat(&text, "steps     %d, the last %.1f s ago; %d tokens generated\n",
                        cluster.steps_completed(), cluster.seconds_since_last_step(),
                        cluster.generated_tokens());
  absl::StrAppendFormat(&text, "build     %s\n", cluster.build());
  AppendWorkers(cluster, text);
  AppendRanks(cluster, text);
  return text;
}

std::string ClusterJson(const v1::GetClusterResponse& cluster) {
  JsonOutput json;
  json.StartObject();
  json.Field("state", std::string_view(StateName(cluster.state())));
  json.Field("detail", std::string_view(cluster.detail()));
  json.Field("epoch", uint64_t{cluster.epoch()});
  json.Field("plan", std::string_view(cluster.plan()));
  WriteWorkers(cluster, json);
  WriteRanks(cluster, json);
  json.Field("requests_running", cluster.requests_running());
  json.Field("requests_waiting", cluster.requests_waiting());
  json.Field("kv_blocks_total", cluster.kv_blocks_total());
  json.Field("kv_blocks_used", cluster.kv_blocks_used());
  json.Field("steps_completed", uint64_t{cluster.steps_completed()});
  json.Field("generated_tokens", uint64_t{cluster.generated_tokens()});
  json.Field("seconds_since_last_step", cluster.seconds_since_last_step());
  WriteModel(cluster.model(), json);
  json.Field("build", std::string_view(cluster.build()));
  json.EndObject();
  return json.text();
}

}  // namespace essor::cli
