#include "model/checkpoint/gguf_metadata.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

absl::Status WrongType(const GgufFile& file, const std::string& key, const char* wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(file.path(), ": metadata key ", key, " must be ", wanted));
}

absl::StatusOr<const GgufValue*> FindKey(const GgufFile& file, const std::string& key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) {
    return absl::NotFoundError(absl::StrCat(file.path(), ": metadata key ", key, " is missing"));
  }
  return &it->second;
}

template <typename T>
absl::StatusOr<const T*> FindAs(const GgufFile& file, const std::string& key, const char* wanted) {
  ESSOR_ASSIGN_OR_RETURN(const GgufValue* const value, FindKey(file, key));
  const T* const typed = std::get_if<T>(value);
  if (typed == nullptr) return WrongType(file, key, wanted);
  return typed;
}

}  // namespace

absl::StatusOr<uint64_t> GgufUint(const GgufFile& file, const std::string& key) {
  ESSOR_ASSIGN_OR_RETURN(const GgufValue* const value, FindKey(file, key));
  if (const auto* const number = std::get_if<uint64_t>(value)) return *number;
  const auto* const number = std::get_if<int64_t>(value);
  if (number == nullptr || *number < 0) return WrongType(file, key, "a non-negative integer");
  return static_cast<uint64_t>(*number);
}

absl::StatusOr<double> GgufReal(const GgufFile& file, const std::string& key) {
  ESSOR_ASSIGN_OR_RETURN(const GgufValue* const value, FindKey(file, key));
  if (const auto* const number = std::get_if<double>(value)) return *number;
  if (const auto* const number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  if (const auto* const number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
  return WrongType(file, key, "a number");
}

absl::StatusOr<bool> GgufBool(const GgufFile& file, const std::string& key) {
  ESSOR_ASSIGN_OR_RETURN(const bool* const value, FindAs<bool>(file, key, "a bool"));
  return *value;
}

absl::StatusOr<std::string> GgufString(const GgufFile& file, const std::string& key) {
  ESSOR_ASSIGN_OR_RETURN(const std::string* const value,
                         FindAs<std::string>(file, key, "a string"));
  return *value;
}

absl::StatusOr<const std::vector<std::string>*> GgufStrings(const GgufFile& file,
                                                            const std::string& key) {
  return FindAs<std::vector<std::string>>(file, key, "an array of strings");
}

}  // namespace essor::model
