#include "common/tenant_weight.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace essor {
namespace {

constexpr double kLeast = 0.001;
constexpr double kMost = 1000;
constexpr size_t kMaxNameBytes = 128;

absl::StatusOr<std::pair<std::string, double>> ParseTenantWeight(const std::string& text) {
  const size_t equals = text.rfind('=');
  double weight = 0;
  const bool is_number =
      equals != std::string::npos && absl::SimpleAtod(text.substr(equals + 1), &weight);
  if (!is_number || !(weight >= kLeast && weight <= kMost)) {  // NaN, too
    return absl::InvalidArgumentError(absl::StrCat("--tenant-weight: '", text,
                                                   "' is not NAME=WEIGHT with a weight from ",
                                                   kLeast, " to ", kMost));
  }
  std::string name = text.substr(0, equals);
  const bool printable =
      std::all_of(name.begin(), name.end(), [](char byte) { return byte > 0x20 && byte < 0x7f; });
  if (!printable || name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tenant-weight: '", text, "' does not begin with a tenant's name: at most ",
                     kMaxNameBytes, " printable ASCII characters without spaces"));
  }
  return std::pair(std::move(name), weight);
}

}  // namespace

absl::StatusOr<std::map<std::string, double>> ParseTenantWeights(
    const std::vector<std::string>& texts) {
  std::map<std::string, double> weights;
  for (const std::string& text : texts) {
    ESSOR_ASSIGN_OR_RETURN(auto weight, ParseTenantWeight(text));
    if (!weights.insert(std::move(weight)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--tenant-weight: '", text, "' weighs a tenant a second time"));
    }
  }
  return weights;
}

}  // namespace essor
