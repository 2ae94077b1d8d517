// Reading a model's JSON files (config.json, generation_config.json, tokenizer_config.json) with
// errors that name the file and the key.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace essor::model {

// One JSON object, or an object inside it. A key whose value is null counts as absent, as in
// transformers. Immutable, cheap to copy, thread-safe.
//
//   ESSOR_ASSIGN_OR_RETURN(const ConfigView config, ConfigView::Parse(text, "config.json"));
//   ESSOR_ASSIGN_OR_RETURN(const uint32_t layers, config.Size("num_hidden_layers", 1024));
//
// Getters return InvalidArgument naming file and key for an absent key or a value of another type.
class ConfigView {
 public:
  // InvalidArgument naming `file` when `json` is not one JSON object. `file` is for messages only.
  static absl::StatusOr<ConfigView> Parse(std::string_view json, const std::string& file);

  bool Has(const std::string& key) const;
  bool IsObject(const std::string& key) const;
  bool IsList(const std::string& key) const;
  // Of all members but those that are null, in the file's order.
  std::vector<std::string> Keys() const;

  // A whole number from 1 to `max`.
  absl::StatusOr<uint32_t> Size(const std::string& key, uint32_t max) const;
  absl::StatusOr<uint32_t> SizeOr(const std::string& key, uint32_t max, uint32_t fallback) const;
  // A whole number from 0 to `max`.
  absl::StatusOr<uint32_t> CountOr(const std::string& key, uint32_t max, uint32_t fallback) const;
  // A finite number; whole numbers count.
  absl::StatusOr<double> Number(const std::string& key) const;
  absl::StatusOr<double> NumberOr(const std::string& key, double fallback) const;
  // A finite number above zero.
  absl::StatusOr<double> PositiveOr(const std::string& key, double fallback) const;
  absl::StatusOr<bool> BoolOr(const std::string& key, bool fallback) const;
  absl::StatusOr<std::string> String(const std::string& key) const;
  absl::StatusOr<std::string> StringOr(const std::string& key, const std::string& fallback) const;
  // A list of whole numbers, or one of them (eos_token_id has both forms). Empty when absent.
  absl::StatusOr<std::vector<int64_t>> Integers(const std::string& key) const;
  // Empty when absent.
  absl::StatusOr<std::vector<std::string>> Strings(const std::string& key) const;
  absl::StatusOr<ConfigView> Object(const std::string& key) const;
  // A list of objects. Empty when absent.
  absl::StatusOr<std::vector<ConfigView>> Objects(const std::string& key) const;

  // InvalidArgument "config.json: rope_scaling.factor: <problem>".
  absl::Status Error(const std::string& key, const std::string& problem) const;
  const std::string& file() const { return file_; }

 private:
  struct Node;
  ConfigView(std::string file, std::string prefix, std::shared_ptr<const Node> node);
  absl::StatusOr<uint32_t> WholeBetween(const std::string& key, uint32_t min, uint32_t max) const;

  std::string file_;
  std::string prefix_;  // "rope_scaling." inside an object of that name
  // Shared by all views into one document.
  std::shared_ptr<const Node> node_;
};

}  // namespace essor::model
