#include "model/chat/attribute_path.h"

#include <utility>

#include "common/status_macros.h"
#include "model/chat/operators.h"
#include "model/chat/text.h"

namespace essor::model::jinja {

absl::StatusOr<AttributePath> AttributePath::From(const Value* attribute) {
  AttributePath path;
  if (attribute == nullptr || attribute->is_none()) return path;
  if (attribute->is_int()) {
    path.parts_.push_back(*attribute);
    return path;
  }
  const std::string* text = attribute->as_text();
  if (text == nullptr) return TypeError("an attribute is named by a string or an integer");
  for (const std::string_view part : Split(*text, ".", -1)) {
    const bool number =
        !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    path.parts_.push_back(number ? IntegerFromDigits(part) : Value(part));
  }
  return path;
}

absl::StatusOr<Value> AttributePath::Get(Runtime& runtime, const Value& item,
                                         const Value* absent) const {
  Value value = item;
  for (const Value& part : parts_) {
    if (value.is_undefined()) break;
    ESSOR_ASSIGN_OR_RETURN(value, LookUpItem(runtime, value, part));
    if (value.is_undefined() && absent != nullptr) value = *absent;
  }
  return value;
}

absl::StatusOr<std::vector<Value>> SortKeys(Runtime& runtime, const std::vector<Value>& items,
                                            const AttributePath& path, bool case_sensitive) {
  std::vector<Value> keys;
  for (const Value& item : items) {
    ESSOR_ASSIGN_OR_RETURN(Value key, path.Get(runtime, item));
    ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(key));
    if (!case_sensitive && key.is_string()) key = Value(Lower(*key.as_text()));
    keys.push_back(std::move(key));
  }
  return keys;
}

}  // namespace essor::model::jinja
