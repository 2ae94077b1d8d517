#include <string>

#include "client/plan/plan_report.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"

namespace essor::client {
namespace {

using Writer = rapidjson::PrettyWriter<rapidjson::StringBuffer>;

void Member(Writer& json, const char* key, uint64_t value) {
  json.Key(key);
  json.Uint64(value);
}
void Member(Writer& json, const char* key, double value) {
  json.Key(key);
  json.Double(value);
}
void Member(Writer& json, const char* key, const std::string& value) {
  json.Key(key);
  json.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
}
// [begin, end), half-open as in the plan.
void Member(Writer& json, const char* key, const model::Range& range) {
  json.Key(key);
  json.StartArray();
  json.Uint64(range.begin);
  json.Uint64(range.end);
  json.EndArray();
}

void WriteModel(Writer& json, const PlanReport& report) {
  const model::ModelSpec& spec = report.spec;
  json.Key("model");
  json.StartObject();
  Member(json, "path", report.model);
  Member(json, "family", spec.family);
  Member(json, "parameters", spec.NumParameters());
  Member(json, "active_parameters", spec.NumActiveParameters());
  Member(json, "layers", uint64_t{spec.layers.size()});
  Member(json, "weights", std::string(InfoOf(report.weights).name));
  Member(json, "max_context_tokens", uint64_t{report.limits.max_context_tokens});
  json.EndObject();
}

void WriteCluster(Writer& json, const PlanReport& report) {
  json.Key("cluster");
  json.StartObject();
  Member(json, "nodes", uint64_t{report.nodes});
  Member(json, "devices_per_node", uint64_t{report.devices_per_node});
  Member(json, "device_memory_bytes", report.device_memory_bytes);
  json.EndObject();
}

void WritePlan(Writer& json, const PlanReport& report) {
  const model::ParallelPlan& plan = report.instance.plan;
  Member(json, "plan", plan.ToString());
  json.Key("factors");
  json.StartObject();
  Member(json, "pp", uint64_t{plan.pp});
  Member(json, "dp", uint64_t{plan.dp});
  Member(json, "tp", uint64_t{plan.tp});
  Member(json, "ep", uint64_t{plan.ep});
  json.EndObject();
  Member(json, "reason", report.reason);
}

void WriteKv(Writer& json, const PlanReport& report) {
  json.Key("kv_cache");
  json.StartObject();
  Member(json, "dtype", std::string(NameOf(report.limits.kv_type)));
  Member(json, "block_tokens", uint64_t{report.limits.block_tokens});
  const model::KvCapacity& capacity = report.instance.capacity;
  Member(json, "groups", uint64_t{report.instance.plan.dp});
  Member(json, "num_blocks", uint64_t{capacity.num_blocks});  // these three of one group
  Member(json, "num_window_blocks", uint64_t{capacity.num_window_blocks});
  Member(json, "num_snapshots", uint64_t{capacity.num_snapshots});
  Member(json, "tokens", KvTokens(report));
  Member(json, "latent_copies", uint64_t{LatentCopies(report)});
  json.EndObject();
}

void WritePrice(Writer& json, const model::Price& price, uint64_t batch, uint64_t context) {
  json.StartObject();
  Member(json, "batch", batch);
  Member(json, "context_tokens", context);
  Member(json, "tokens_per_second", price.tokens_per_second);
  Member(json, "step_seconds", price.step_seconds);
  Member(json, "compute_seconds", price.compute_seconds);
  Member(json, "exchange_seconds", price.exchange_seconds);
  json.EndObject();
}

void WriteTraffic(Writer& json, const model::Traffic& traffic) {
  json.Key("traffic_bytes_per_token");
  json.StartObject();
  Member(json, "attention", traffic.attention);
  Member(json, "ffn", traffic.ffn);
  Member(json, "embedding", traffic.embedding);
  Member(json, "pipeline", traffic.pipeline);
  Member(json, "total", traffic.total());
  json.EndObject();
}

void WriteLink(Writer& json, const char* key, const model::Link& link) {
  json.Key(key);
  json.StartObject();
  Member(json, "bytes_per_second", link.bytes_per_second);
  Member(json, "latency_seconds", link.latency_seconds);
  json.EndObject();
}

void WriteAssumptions(Writer& json, const model::Hardware& hardware) {
  json.Key("assumed");
  json.StartObject();
  Member(json, "memory_bytes_per_second", hardware.memory_bytes_per_second);
  Member(json, "flops", hardware.flops);
  WriteLink(json, "device_link", hardware.device_link);
  WriteLink(json, "network", hardware.network);
  json.EndObject();
}

void WriteRank(Writer& json, const PlanReport& report, size_t rank) {
  const model::RankLayout& layout = report.instance.ranks[rank];
  const model::MemoryPlan& memory = report.instance.memory[rank];
  json.StartObject();
  Member(json, "rank", uint64_t{rank});
  Member(json, "node", uint64_t{rank / report.devices_per_node});
  Member(json, "stage", uint64_t{layout.stage});
  Member(json, "group", uint64_t{layout.dp_index});
  Member(json, "layers", layout.layers);
  Member(json, "vocabulary", layout.vocab);
  // Layers may differ; equal neighbours are written once.
  json.Key("shares");
  json.StartArray();
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const model::RankLayout::Layer& layer = layout.per_layer[i];
    if (i > 0 && layer == layout.per_layer[i - 1]) continue;
    json.StartObject();
    Member(json, "from_layer", layout.layers.begin + i);
    Member(json, "heads", layer.heads);
    Member(json, "kv_heads", layer.kv_heads);
    Member(json, "ffn", layer.ffn);
    Member(json, "experts", layer.experts);
    Member(json, "expert_ffn", layer.expert_ffn);
    json.EndObject();
  }
  json.EndArray();
  Member(json, "weight_bytes", memory.weight_bytes);
  Member(json, "state_bytes", memory.state_bytes);
  Member(json, "snapshot_bytes", memory.snapshot_bytes);
  Member(json, "kv_bytes", memory.kv_bytes);
  Member(json, "activation_bytes", memory.activation_bytes);
  Member(json, "exchange_bytes", memory.exchange_bytes);
  Member(json, "total_bytes", memory.total_bytes());
  Member(json, "free_bytes", report.device_memory_bytes - memory.total_bytes());
  json.EndObject();
}

}  // namespace

std::string PlanJson(const PlanReport& report) {
  rapidjson::StringBuffer buffer;
  Writer json(buffer);
  json.SetIndent(' ', 2);
  json.SetFormatOptions(rapidjson::kFormatSingleLineArray);
  json.StartObject();
  WriteModel(json, report);
  WriteCluster(json, report);
  WritePlan(json, report);
  WriteKv(json, report);
  json.Key("decode");
  json.StartArray();
  WritePrice(json, report.instance.price, report.workload.batch, report.workload.context_tokens);
  WritePrice(json, report.price_of_one, 1, report.workload.context_tokens);
  json.EndArray();
  WriteTraffic(json, report.instance.price.traffic);
  WriteAssumptions(json, report.hardware);
  json.Key("ranks");
  json.StartArray();
  for (size_t rank = 0; rank < report.instance.ranks.size(); ++rank) {
    WriteRank(json, report, rank);
  }
  json.EndArray();
  json.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize()) + "\n";
}

}  // namespace essor::client
