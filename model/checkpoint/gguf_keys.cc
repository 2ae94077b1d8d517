#include "model/checkpoint/gguf_keys.h"

#include <charconv>
#include <cstdlib>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_metadata.h"

namespace essor::model {
namespace {

// A missing key is a fault of the file, not of the caller's path.
template <typename T>
absl::StatusOr<T> OrMissing(absl::StatusOr<T> value, const std::optional<T>& missing) {
  if (!absl::IsNotFound(value.status())) return value;
  if (missing.has_value()) return *missing;
  return absl::InvalidArgumentError(value.status().message());
}

}  // namespace

double ShortestFloat(double stored) {
  char text[64];
  const auto result = std::to_chars(text, text + sizeof(text) - 1, static_cast<float>(stored));
  *result.ptr = '\0';
  return std::strtod(text, nullptr);
}

bool GgufKeys::Has(const std::string& key) const {
  return file_.metadata().contains(absl::StrCat(architecture_, ".", key));
}

absl::StatusOr<uint64_t> GgufKeys::Uint(const std::string& key, std::optional<uint64_t> missing) {
  return OrMissing(GgufUint(file_, Note(key)), missing);
}

absl::StatusOr<double> GgufKeys::Positive(const std::string& key, std::optional<double> missing) {
  ESSOR_ASSIGN_OR_RETURN(const double stored, OrMissing(GgufReal(file_, Note(key)), missing));
  if (!(stored > 0.0) || stored > std::numeric_limits<float>::max()) {
    return Bad(key, " must be a positive number");
  }
  return ShortestFloat(stored);
}

absl::StatusOr<bool> GgufKeys::Bool(const std::string& key, bool missing) {
  return OrMissing(GgufBool(file_, Note(key)), std::optional(missing));
}

absl::StatusOr<std::string> GgufKeys::String(const std::string& key, const std::string& missing) {
  return OrMissing(GgufString(file_, Note(key)), std::optional(missing));
}

absl::Status GgufKeys::Bad(const std::string& key, const std::string& problem) const {
  return absl::InvalidArgumentError(
      absl::StrCat(file_.path(), ": metadata key ", architecture_, ".", key, problem));
}

absl::Status GgufKeys::RefuseOthers() const {
  const std::string prefix = architecture_ + ".";
  std::set<std::string> others;
  for (const auto& [key, value] : file_.metadata()) {
    if (key.starts_with(prefix) && !asked_.contains(key)) others.insert(key);
  }
  if (others.empty()) return absl::OkStatus();
  return Bad(others.begin()->substr(prefix.size()), " is not understood");
}

std::string GgufKeys::Note(const std::string& key) {
  std::string whole = absl::StrCat(architecture_, ".", key);
  asked_.insert(whole);
  return whole;
}

}  // namespace essor::model
