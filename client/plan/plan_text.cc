#include <algorithm>
#include <array>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/plan/plan_report.h"
#include "model/plan/byte_size.h"
#include "model/plan/memory_plan.h"

namespace essor::client {
namespace {

using model::FormatByteSize;

std::string RangeText(const model::Range& range) {
  if (range.size() == 0) return "-";
  return absl::StrCat(range.begin, "-", range.end - 1);
}

// Of the first layer of the rank that has what `pick` picks, since layers of a model may differ.
template <typename Pick>
std::string FirstOf(const model::RankLayout& layout, const Pick& pick) {
  for (const model::RankLayout::Layer& layer : layout.per_layer) {
    if (pick(layer).size() > 0) return RangeText(pick(layer));
  }
  return "-";
}

constexpr size_t kColumns = 13;
using Row = std::array<std::string, kColumns>;

Row Titles() {
  return {"rank",       "layers",  "heads",  "kv heads", "ffn",       "experts", "expert ffn",
          "vocabulary", "weights", "states", "KV cache", "workspace", "free"};
}

Row RowOf(const PlanReport& report, size_t rank) {
  using Layer = model::RankLayout::Layer;
  const model::RankLayout& layout = report.instance.ranks[rank];
  const model::MemoryPlan& memory = report.instance.memory[rank];
  const uint64_t states = memory.state_bytes + memory.snapshot_bytes;
  const bool holds_vocabulary = layout.first_stage || layout.last_stage;
  return {absl::StrCat(rank),
          RangeText(layout.layers),
          FirstOf(layout, [](const Layer& layer) { return layer.heads; }),
          FirstOf(layout, [](const Layer& layer) { return layer.kv_heads; }),
          FirstOf(layout, [](const Layer& layer) { return layer.ffn; }),
          FirstOf(layout, [](const Layer& layer) { return layer.experts; }),
          FirstOf(layout, [](const Layer& layer) { return layer.expert_ffn; }),
          holds_vocabulary ? RangeText(layout.vocab) : "-",
          FormatByteSize(memory.weight_bytes),
          states == 0 ? "-" : FormatByteSize(states),
          FormatByteSize(memory.kv_bytes),
          FormatByteSize(memory.activation_bytes + memory.exchange_bytes),
          FormatByteSize(report.device_memory_bytes - memory.total_bytes())};
}

std::string RankTable(const PlanReport& report) {
  std::vector<Row> rows = {Titles()};
  for (size_t rank = 0; rank < report.instance.ranks.size(); ++rank) {
    rows.push_back(RowOf(report, rank));
  }
  std::array<size_t, kColumns> widths{};
  for (const Row& row : rows) {
    for (size_t c = 0; c < kColumns; ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t c = 0; c < kColumns; ++c) {
      absl::StrAppendFormat(&text, "%s%*s", c == 0 ? "" : "  ", static_cast<int>(widths[c]),
                            row[c]);
    }
    text += '\n';
  }
  return text;
}

std::string Billions(uint64_t parameters) {
  if (parameters < 1'000'000'000) {
    return absl::StrFormat("%.1f M", static_cast<double>(parameters) / 1e6);
  }
  return absl::StrFormat("%.1f B", static_cast<double>(parameters) / 1e9);
}

std::string Count(uint64_t count, const char* singular, const char* plural) {
  return absl::StrCat(count, " ", count == 1 ? singular : plural);
}

std::string SpeedLine(const model::Price& price, uint32_t batch, uint32_t context_tokens) {
  return absl::StrFormat(
      "batch %d, context %d: %.4g tokens/s (a step takes %.4g ms: %.4g ms computing, %.4g ms "
      "exchanging)\n",
      batch, context_tokens, price.tokens_per_second, price.step_seconds * 1e3,
      price.compute_seconds * 1e3, price.exchange_seconds * 1e3);
}

std::string KvLine(const PlanReport& report) {
  const uint64_t tokens = KvTokens(report);
  const uint32_t groups = report.instance.plan.dp;
  return absl::StrFormat("%d blocks of %d tokens in %s%s: %d tokens, %.1f sequences of %d\n",
                         report.instance.capacity.num_blocks, report.limits.block_tokens,
                         NameOf(report.limits.kv_type),
                         groups == 1 ? "" : absl::StrCat(" in each of ", groups, " groups"), tokens,
                         static_cast<double>(tokens) / report.limits.max_context_tokens,
                         report.limits.max_context_tokens);
}

// What the model's other kinds of layers have; nothing where it has none.
std::string OtherKvLines(const PlanReport& report) {
  const model::KvCapacity& capacity = report.instance.capacity;
  const model::KvKinds kinds = model::KvKindsOf(report.spec, report.limits.max_context_tokens);
  std::string lines;
  if (kinds.window_tokens > 0) {
    absl::StrAppendFormat(&lines,
                          "          %d blocks for layers that read %d tokens: %.1f windows\n",
                          capacity.num_window_blocks, kinds.window_tokens,
                          static_cast<double>(capacity.num_window_blocks) *
                              report.limits.block_tokens / kinds.window_tokens);
  }
  if (kinds.states) {
    absl::StrAppendFormat(&lines, "          %d snapshots of a sequence's states\n",
                          capacity.num_snapshots);
  }
  return lines;
}

// Latents are not divided by tensor parallelism: what that costs beside a cache that is.
std::string LatentLine(const PlanReport& report) {
  const uint32_t copies = LatentCopies(report);
  if (copies <= 1) return "";
  uint64_t most = 0;
  for (const model::RankLayout& layout : report.instance.ranks) {
    most = std::max(most, model::KvBytesPerToken(layout, report.spec, report.limits.kv_type));
  }
  return absl::StrFormat(
      "          every rank of tp=%d holds the latents of all tokens: %s a token, where a divided "
      "cache would take %s\n",
      copies, FormatByteSize(most), FormatByteSize(most / copies));
}

std::string TrafficLine(const model::Traffic& traffic) {
  return absl::StrFormat(
      "%s a token from the rank that sends most (attention %s, FFN %s, embedding %s, pipeline "
      "%s)\n",
      FormatByteSize(traffic.total()), FormatByteSize(traffic.attention),
      FormatByteSize(traffic.ffn), FormatByteSize(traffic.embedding),
      FormatByteSize(traffic.pipeline));
}

std::string LinkText(const model::Link& link) {
  return absl::StrFormat("%s/s and %.3g us",
                         FormatByteSize(static_cast<uint64_t>(link.bytes_per_second)),
                         link.latency_seconds * 1e6);
}

std::string AssumptionLine(const model::Hardware& hardware) {
  return absl::StrFormat(
      "%s/s from memory and %.4g TFLOPS a device; %s between devices of a node, %s between nodes\n",
      FormatByteSize(static_cast<uint64_t>(hardware.memory_bytes_per_second)),
      hardware.flops / 1e12, LinkText(hardware.device_link), LinkText(hardware.network));
}

}  // namespace

uint64_t KvTokens(const PlanReport& report) {
  return uint64_t{report.instance.plan.dp} * report.instance.capacity.num_blocks *
         report.limits.block_tokens;
}

uint32_t LatentCopies(const PlanReport& report) {
  const bool latents = std::any_of(
      report.spec.layers.begin(), report.spec.layers.end(), [](const model::LayerSpec& layer) {
        return std::holds_alternative<model::LatentAttention>(layer.attention);
      });
  return latents ? report.instance.plan.tp : 1;
}

std::string PlanText(const PlanReport& report) {
  const model::ModelSpec& spec = report.spec;
  const std::string model = absl::StrFormat(
      "%s (%s): %s parameters, %s of them per token, %s, weights in %s\n", report.model,
      spec.family, Billions(spec.NumParameters()), Billions(spec.NumActiveParameters()),
      Count(spec.layers.size(), "layer", "layers"), InfoOf(report.weights).name);
  const std::string cluster =
      absl::StrFormat("%s x %s of %s\n", Count(report.nodes, "node", "nodes"),
                      Count(report.devices_per_node, "device", "devices"),
                      FormatByteSize(report.device_memory_bytes));
  return absl::StrCat(
      "model     ", model,    //
      "cluster   ", cluster,  //
      "plan      ", report.instance.plan.ToString(), " (", report.instance.ranks.size(),
      " ranks)\n",                        //
      "          ", report.reason, "\n",  //
      "KV cache  ", KvLine(report),       //
      OtherKvLines(report),               //
      LatentLine(report),                 //
      "decode    ",
      SpeedLine(report.instance.price, report.workload.batch, report.workload.context_tokens),
      "          ", SpeedLine(report.price_of_one, 1, report.workload.context_tokens),  //
      "traffic   ", TrafficLine(report.instance.price.traffic),                         //
      "assumed   ", AssumptionLine(report.hardware), "\n", RankTable(report));
}

}  // namespace essor::client
