#include <algorithm>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/plan/attention_shape.h"
#include "model/plan/parallel_plan.h"

namespace essor::model {
namespace {

absl::Status Refuse(const std::string& sentence) { return absl::InvalidArgumentError(sentence); }

// Those that share what is divided by tokens.
std::string RanksOfGroup(const ParallelPlan& plan) {
  return absl::StrCat(plan.RanksPerGroup(), " ranks per ",
                      plan.dp == 1 ? "stage" : "data-parallel group");
}

absl::Status CheckFactors(const ParallelPlan& plan, const ModelSpec& spec) {
  if (plan.pp < 1 || plan.dp < 1 || plan.tp < 1 || plan.ep < 1) {
    return Refuse(absl::StrCat("plan ", plan.ToString(), " has a factor below 1"));
  }
  const uint32_t attention = plan.dp * plan.tp;
  if (std::max(attention, plan.ep) % std::min(attention, plan.ep) != 0) {
    const std::string product =
        plan.dp == 1 ? absl::StrCat("tp=", plan.tp) : absl::StrCat("dp x tp = ", attention);
    return Refuse(absl::StrCat("of ", product, " and ep=", plan.ep,
                               " the larger must be a multiple of the smaller"));
  }
  if (plan.pp > spec.layers.size()) {
    return Refuse(
        absl::StrCat("pp=", plan.pp, " exceeds the model's ", spec.layers.size(), " layers"));
  }
  if (plan.RanksPerGroup() > spec.vocab_size) {
    return Refuse(absl::StrCat(RanksOfGroup(plan), " exceed the model's ", spec.vocab_size,
                               " vocabulary rows"));
  }
  const bool any_experts =
      std::any_of(spec.layers.begin(), spec.layers.end(),
                  [](const LayerSpec& layer) { return std::holds_alternative<MoeFfn>(layer.ffn); });
  if (plan.ep > 1 && !any_experts) {
    return Refuse(absl::StrCat("ep=", plan.ep, " spreads experts, and this model (", spec.family,
                               ") has none"));
  }
  return absl::OkStatus();
}

absl::Status CheckAttention(const ParallelPlan& plan, const AttentionSpec& attention,
                            uint32_t quant_block) {
  const uint32_t num_heads = NumHeads(attention);
  const uint32_t head_dim = OutputHeadDim(attention);
  if (plan.tp > num_heads) {
    return Refuse(
        absl::StrCat("tp=", plan.tp, " exceeds the model's ", num_heads, " attention heads"));
  }
  if (plan.tp > 1 && head_dim % quant_block != 0) {
    return Refuse(absl::StrCat("tp=", plan.tp, " cuts the output projection between heads of ",
                               head_dim, " columns, inside quantised blocks of ", quant_block));
  }
  return absl::OkStatus();
}

// `what` has `columns` columns, to be cut over `parts` ranks.
absl::Status CheckColumns(const std::string& what, uint32_t columns, uint32_t parts,
                          const std::string& factors, uint32_t quant_block) {
  if (parts > 1 && quant_block > 1 && columns % quant_block != 0) {
    return Refuse(absl::StrCat(factors, " cuts ", what, " of ", columns,
                               " columns, which is not whole quantised blocks of ", quant_block));
  }
  const uint32_t pieces = (columns + quant_block - 1) / quant_block;
  if (parts <= pieces) return absl::OkStatus();
  const std::string blocks =
      quant_block == 1 ? "" : absl::StrCat(" (", pieces, " quantised blocks of ", quant_block, ")");
  return Refuse(absl::StrCat(factors, " cuts ", what, " of ", columns, " columns", blocks, " into ",
                             parts, " parts"));
}

absl::Status CheckFfn(const ParallelPlan& plan, const DenseFfn& ffn, QuantBlock quant_block) {
  return CheckColumns("the FFN", ffn.intermediate_size, plan.tp, absl::StrCat("tp=", plan.tp),
                      quant_block.others);
}

absl::Status CheckFfn(const ParallelPlan& plan, const MoeFfn& ffn, QuantBlock quant_block) {
  if (plan.ep > ffn.num_experts) {
    return Refuse(
        absl::StrCat("ep=", plan.ep, " exceeds the model's ", ffn.num_experts, " experts"));
  }
  // The shared expert may leave ranks without a piece, but no piece may cut a quantised block.
  if (ffn.shared_intermediate_size % quant_block.others != 0 && plan.RanksPerGroup() > 1) {
    return Refuse(
        absl::StrCat(RanksOfGroup(plan), " cut the shared expert of ", ffn.shared_intermediate_size,
                     " columns, which is not whole quantised blocks of ", quant_block.others));
  }
  const std::string attention = plan.dp == 1 ? "" : absl::StrCat("dp=", plan.dp, ",");
  return CheckColumns("each expert", ffn.intermediate_size, plan.RanksPerStage() / plan.ep,
                      absl::StrCat(attention, "tp=", plan.tp, " with ep=", plan.ep),
                      quant_block.experts);
}

}  // namespace

absl::Status ValidatePlan(const ParallelPlan& plan, const ModelSpec& spec, QuantBlock quant_block) {
  ESSOR_RETURN_IF_ERROR(CheckFactors(plan, spec));
  for (const LayerSpec& layer : spec.layers) {
    ESSOR_RETURN_IF_ERROR(CheckAttention(plan, layer.attention, quant_block.others));
    ESSOR_RETURN_IF_ERROR(
        std::visit([&](const auto& ffn) { return CheckFfn(plan, ffn, quant_block); }, layer.ffn));
  }
  return absl::OkStatus();
}

}  // namespace essor::model
