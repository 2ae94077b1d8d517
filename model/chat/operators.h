// Python's operators and subscripts.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/chat/ast.h"
#include "model/chat/runtime.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

// All return InvalidArgument with Python's message for operands that do not fit.
absl::StatusOr<Value> ApplyBinary(Runtime& runtime, BinaryOperator op, const Value& left,
                                  const Value& right);
absl::StatusOr<Value> ApplySign(bool minus, const Value& operand);
absl::StatusOr<bool> ApplyComparison(Runtime& runtime, CompareOperator op, const Value& left,
                                     const Value& right);
// `item in container`.
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

// object.name: a method or field first, then the item; undefined when there is neither.
absl::StatusOr<Value> LookUpAttribute(const Value& object, const std::string& name);
// object[index], the other way round.
absl::StatusOr<Value> LookUpItem(Runtime& runtime, const Value& object, const Value& index);
// object[start:stop:step]; none for a part left out.
absl::StatusOr<Value> LookUpSlice(Runtime& runtime, const Value& object, const Value& start,
                                  const Value& stop, const Value& step);

}  // namespace essor::model::jinja
