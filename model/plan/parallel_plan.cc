#include "model/plan/parallel_plan.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/check.h"

namespace essor::model {
namespace {

absl::Status Invalid(const std::string& text, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat("plan \"", text, "\": ", problem));
}

// The factor that `name` names, or null.
uint32_t* FactorNamed(ParallelPlan& plan, const std::string& name) {
  if (name == "pp") return &plan.pp;
  if (name == "dp") return &plan.dp;
  if (name == "tp") return &plan.tp;
  if (name == "ep") return &plan.ep;
  return nullptr;
}

}  // namespace

absl::StatusOr<ParallelPlan> ParallelPlan::Parse(const std::string& text) {
  ParallelPlan plan;
  std::vector<std::string> seen;
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  for (const std::string& part : parts) {
    const size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    uint32_t* const factor = FactorNamed(plan, name);
    if (equals == std::string::npos || factor == nullptr) {
      return Invalid(text, absl::StrCat("\"", part,
                                        "\" is not one of pp=N, dp=N, tp=N, ep=N (separated by "
                                        "commas)"));
    }
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      return Invalid(text, absl::StrCat(name, " is given twice"));
    }
    seen.push_back(name);
    const std::string value = part.substr(equals + 1);
    const char* const end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, *factor);
    if (error != std::errc() || stop != end || *factor < 1 || *factor > kMaxRanks) {
      return Invalid(
          text, absl::StrCat(name, "=", value, " is not a whole number from 1 to ", kMaxRanks));
    }
  }
  const uint32_t attention = plan.dp * plan.tp;
  if (std::max(attention, plan.ep) % std::min(attention, plan.ep) != 0) {
    return Invalid(text, absl::StrCat("of dp x tp = ", attention, " and ep=", plan.ep,
                                      " the larger must be a multiple of the smaller"));
  }
  if (uint64_t{plan.pp} * plan.RanksPerStage() > kMaxRanks) {
    return Invalid(text, absl::StrCat("more than ", kMaxRanks, " ranks"));
  }
  return plan;
}

std::string ParallelPlan::ToString() const {
  return absl::StrCat("pp=", pp, ",dp=", dp, ",tp=", tp, ",ep=", ep);
}

uint32_t ParallelPlan::RanksPerStage() const { return std::max(dp * tp, ep); }

}  // namespace essor::model
