#include "model/spec/config_view.h"

#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/python_json.h"
#include "common/status_macros.h"
#include "simdjson.h"

namespace essor::model {
namespace {

namespace dom = simdjson::dom;

// Whole numbers may be written as floats (128256.0), which some exporters do.
std::optional<int64_t> WholeNumber(const dom::element& value) {
  int64_t whole = 0;
  if (value.get_int64().get(whole) == simdjson::SUCCESS) return whole;
  double number = 0;
  if (value.get_double().get(number) != simdjson::SUCCESS) return std::nullopt;
  constexpr double kExactLimit = 9007199254740992.0;  // 2^53
  if (std::abs(number) > kExactLimit || number != std::trunc(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

struct ConfigView::Node {
  std::shared_ptr<dom::parser> document;  // owns what `object` points into; shared by all views
  dom::object object;

  // Nothing for an absent key and for null.
  std::optional<dom::element> Find(const std::string& key) const {
    dom::element value;
    if (object.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return value;
  }
};

ConfigView::ConfigView(std::string file, std::string prefix, std::shared_ptr<const Node> node)
    : file_(std::move(file)), prefix_(std::move(prefix)), node_(std::move(node)) {}

absl::StatusOr<ConfigView> ConfigView::Parse(std::string_view json, const std::string& file) {
  auto document = std::make_shared<dom::parser>();
  dom::element root;
  if (const auto error = ParsePythonJson(json, document.get()).get(root)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": not valid JSON: ", simdjson::error_message(error)));
  }
  dom::object object;
  if (root.get_object().get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": not a JSON object"));
  }
  return ConfigView(file, "", std::make_shared<const Node>(Node{std::move(document), object}));
}

absl::Status ConfigView::Error(const std::string& key, const std::string& problem) const {
  return absl::InvalidArgumentError(absl::StrCat(file_, ": ", prefix_, key, ": ", problem));
}

bool ConfigView::Has(const std::string& key) const { return node_->Find(key).has_value(); }

bool ConfigView::IsObject(const std::string& key) const {
  const auto value = node_->Find(key);
  return value.has_value() && value->is_object();
}

bool ConfigView::IsList(const std::string& key) const {
  const auto value = node_->Find(key);
  return value.has_value() && value->is_array();
}

std::vector<std::string> ConfigView::Keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : node_->object) {
    if (!value.is_null()) keys.emplace_back(key);
  }
  return keys;
}

absl::StatusOr<uint32_t> ConfigView::WholeBetween(const std::string& key, uint32_t min,
                                                  uint32_t max) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return Error(key, "missing");
  const auto whole = WholeNumber(*value);
  if (!whole.has_value()) {
    return Error(key, absl::StrCat("expected a whole number from ", min, " to ", max));
  }
  if (*whole < static_cast<int64_t>(min) || *whole > static_cast<int64_t>(max)) {
    return Error(key, absl::StrCat(*whole, " is outside ", min, " to ", max));
  }
  return static_cast<uint32_t>(*whole);
}

absl::StatusOr<uint32_t> ConfigView::Size(const std::string& key, uint32_t max) const {
  return WholeBetween(key, 1, max);
}

absl::StatusOr<uint32_t> ConfigView::SizeOr(const std::string& key, uint32_t max,
                                            uint32_t fallback) const {
  if (!Has(key)) return fallback;
  return Size(key, max);
}

absl::StatusOr<uint32_t> ConfigView::CountOr(const std::string& key, uint32_t max,
                                             uint32_t fallback) const {
  if (!Has(key)) return fallback;
  return WholeBetween(key, 0, max);
}

absl::StatusOr<double> ConfigView::Number(const std::string& key) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return Error(key, "missing");
  double number = 0;
  if (value->get_double().get(number) != simdjson::SUCCESS || !std::isfinite(number)) {
    return Error(key, "expected a number");
  }
  return number;
}

absl::StatusOr<double> ConfigView::NumberOr(const std::string& key, double fallback) const {
  if (!Has(key)) return fallback;
  return Number(key);
}

absl::StatusOr<double> ConfigView::PositiveOr(const std::string& key, double fallback) const {
  ESSOR_ASSIGN_OR_RETURN(const double number, NumberOr(key, fallback));
  if (!(number > 0)) return Error(key, absl::StrCat(number, " is not above 0"));
  return number;
}

absl::StatusOr<bool> ConfigView::BoolOr(const std::string& key, bool fallback) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return fallback;
  bool flag = false;
  if (value->get_bool().get(flag) != simdjson::SUCCESS) {
    return Error(key, "expected true or false");
  }
  return flag;
}

absl::StatusOr<std::string> ConfigView::String(const std::string& key) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return Error(key, "missing");
  std::string_view text;
  if (value->get_string().get(text) != simdjson::SUCCESS) return Error(key, "expected a string");
  return std::string(text);
}

absl::StatusOr<std::string> ConfigView::StringOr(const std::string& key,
                                                 const std::string& fallback) const {
  if (!Has(key)) return fallback;
  return String(key);
}

absl::StatusOr<std::vector<int64_t>> ConfigView::Integers(const std::string& key) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return std::vector<int64_t>();
  if (const auto whole = WholeNumber(*value)) return std::vector<int64_t>{*whole};
  const std::string problem = "expected a whole number or a list of them";
  dom::array list;
  if (value->get_array().get(list) != simdjson::SUCCESS) return Error(key, problem);
  std::vector<int64_t> numbers;
  for (const dom::element entry : list) {
    const auto whole = WholeNumber(entry);
    if (!whole.has_value()) return Error(key, problem);
    numbers.push_back(*whole);
  }
  return numbers;
}

absl::StatusOr<std::vector<std::string>> ConfigView::Strings(const std::string& key) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return std::vector<std::string>();
  dom::array list;
  if (value->get_array().get(list) != simdjson::SUCCESS) {
    return Error(key, "expected a list of strings");
  }
  std::vector<std::string> texts;
  for (const dom::element entry : list) {
    std::string_view text;
    if (entry.get_string().get(text) != simdjson::SUCCESS) {
      return Error(key, "expected a list of strings");
    }
    texts.emplace_back(text);
  }
  return texts;
}

absl::StatusOr<ConfigView> ConfigView::Object(const std::string& key) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return Error(key, "missing");
  dom::object object;
  if (value->get_object().get(object) != simdjson::SUCCESS) {
    return Error(key, "expected an object");
  }
  return ConfigView(file_, absl::StrCat(prefix_, key, "."),
                    std::make_shared<const Node>(Node{node_->document, object}));
}

absl::StatusOr<std::vector<ConfigView>> ConfigView::Objects(const std::string& key) const {
  const auto value = node_->Find(key);
  if (!value.has_value()) return std::vector<ConfigView>();
  dom::array list;
  if (value->get_array().get(list) != simdjson::SUCCESS) {
    return Error(key, "expected a list of objects");
  }
  std::vector<ConfigView> views;
  for (const dom::element entry : list) {
    dom::object object;
    if (entry.get_object().get(object) != simdjson::SUCCESS) {
      return Error(key, "expected a list of objects");
    }
    views.push_back(ConfigView(file_, absl::StrCat(prefix_, key, "[", views.size(), "]."),
                               std::make_shared<const Node>(Node{node_->document, object})));
  }
  return views;
}

}  // namespace essor::model
