#include "common/error_details.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace essor {
namespace {

constexpr char kFieldKey[] = "essor.field";
constexpr char kRetryKey[] = "essor.retry_delay_ms";
constexpr char kReasonKey[] = "essor.reason";

std::string PayloadOf(const absl::Status& status, const char* key) {
  const absl::optional<absl::Cord> payload = status.GetPayload(key);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status FieldError(const std::string& field, const std::string& description) {
  return WithField(absl::InvalidArgumentError(absl::StrCat(field, ": ", description)), field);
}

absl::Status WithField(absl::Status status, const std::string& field) {
  status.SetPayload(kFieldKey, absl::Cord(field));
  return status;
}

std::string FieldOf(const absl::Status& status) { return PayloadOf(status, kFieldKey); }

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  status.SetPayload(kRetryKey, absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(delay))));
  return status;
}

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  int64_t milliseconds = 0;
  if (!absl::SimpleAtoi(PayloadOf(status, kRetryKey), &milliseconds)) return std::nullopt;
  return absl::Milliseconds(milliseconds);
}

absl::Status WithReason(absl::Status status, const std::string& reason) {
  status.SetPayload(kReasonKey, absl::Cord(reason));
  return status;
}

std::string ReasonOf(const absl::Status& status) { return PayloadOf(status, kReasonKey); }

}  // namespace essor
