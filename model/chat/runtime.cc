#include "model/chat/runtime.h"

#include "absl/strings/str_format.h"

namespace essor::model::jinja {

absl::Status Runtime::ChargeSteps(uint64_t steps) {
  steps_ += steps;
  if (steps_ <= static_cast<uint64_t>(options_.steps_max)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("rendering takes more than %d steps", options_.steps_max));
}

absl::Status Runtime::ChargeBytes(uint64_t bytes) {
  // A single huge request must not wrap the sum.
  const auto limit = static_cast<uint64_t>(options_.bytes_max);
  bytes_ = bytes > limit ? limit + 1 : bytes_ + bytes;
  if (bytes_ <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("rendering handles more than %d bytes of text", options_.bytes_max));
}

absl::StatusOr<BoundArguments> BoundArguments::Bind(std::string_view function,
                                                    const CallArguments& arguments,
                                                    std::initializer_list<std::string_view> names,
                                                    size_t required) {
  BoundArguments bound;
  bound.function_ = std::string(function);
  bound.values_.resize(names.size(), nullptr);
  if (arguments.positional.size() > names.size()) {
    return TypeError(absl::StrFormat("%s() takes at most %d arguments, %d given", function,
                                     names.size(), arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound.values_[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.keyword) {
    size_t index = 0;
    while (index < names.size() && names.begin()[index] != name) ++index;
    if (index == names.size()) {
      return TypeError(
          absl::StrFormat("%s() got an unexpected keyword argument '%s'", function, name));
    }
    if (bound.values_[index] != nullptr) {
      return TypeError(
          absl::StrFormat("%s() got multiple values for argument '%s'", function, name));
    }
    bound.values_[index] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound.values_[i] != nullptr) continue;
    return TypeError(
        absl::StrFormat("%s() is missing its argument '%s'", function, names.begin()[i]));
  }
  return bound;
}

absl::StatusOr<int64_t> BoundArguments::Int(size_t index, int64_t absent) const {
  const Value* value = values_[index];
  if (value == nullptr || value->is_none()) return absent;
  if (value->is_undefined()) return UndefinedError(*value);
  if (value->is_bool() || value->is_int()) return value->ToInt();
  return TypeError(absl::StrFormat("%s(): argument %d must be an integer, not %s", function_,
                                   index + 1, TypeName(*value)));
}

absl::StatusOr<std::string> BoundArguments::Text(size_t index, std::string_view absent) const {
  const Value* value = values_[index];
  if (value == nullptr || value->is_none()) return std::string(absent);
  if (value->is_undefined()) return UndefinedError(*value);
  if (const std::string* text = value->as_text()) return *text;
  return TypeError(absl::StrFormat("%s(): argument %d must be a string, not %s", function_,
                                   index + 1, TypeName(*value)));
}

}  // namespace essor::model::jinja
