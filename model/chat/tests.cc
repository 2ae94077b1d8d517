// The tests behind `is`.
#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/operators.h"
#include "model/chat/text.h"

namespace essor::model::jinja {
namespace {

using Result = absl::StatusOr<bool>;

// A test that only looks at the value.
template <bool (*kPredicate)(const Value&)>
Result Check(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_RETURN_IF_ERROR(BoundArguments::Bind("test", arguments, {}, 0).status());
  return kPredicate(object);
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsString(const Value& value) { return value.is_string(); }
bool IsNumber(const Value& value) { return value.is_small_number() || value.as_big_int(); }
bool IsInteger(const Value& value) { return value.is_int() || value.as_big_int(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrueConstant(const Value& value) { return value.is_bool() && *value.as_bool(); }
bool IsFalseConstant(const Value& value) { return value.is_bool() && !*value.as_bool(); }
bool IsMapping(const Value& value) { return value.as_dict() != nullptr; }
bool IsSequence(const Value& value) {
  const List* list = value.as_list();
  return value.is_string() || value.as_dict() || value.is_undefined() ||
         (list != nullptr && list->kind <= ListKind::kTuple);
}
bool IsIterable(const Value& value) {
  return value.is_string() || value.as_dict() || value.as_list() || value.is_undefined() ||
         value.as_loop();
}
bool IsCallable(const Value& value) { return value.as_callable() != nullptr; }
bool IsEscaped(const Value& value) { return value.is_string() && value.as_string()->markup; }
bool IsFilterName(const Value& value) {
  return value.is_string() && FindFilter(*value.as_text()) != nullptr;
}
bool IsTestName(const Value& value) {
  return value.is_string() && FindTest(*value.as_text()) != nullptr;
}

// One-cased text with at least one letter that has cases.
template <std::string (*kMap)(std::string_view), std::string (*kOther)(std::string_view)>
Result HasCase(Runtime& runtime, const Value& object, const CallArguments&) {
  const std::string text = SoftText(object);
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  return kMap(text) == text && kOther(text) != text;
}

absl::StatusOr<int64_t> Integer(const Value& object) {
  if (object.is_undefined()) return UndefinedError(object);
  if (object.is_bool() || object.is_int()) return object.ToInt();
  return TypeError(absl::StrFormat("expected an integer, not %s", TypeName(object)));
}

Result Odd(Runtime&, const Value& object, const CallArguments&) {
  ESSOR_ASSIGN_OR_RETURN(const int64_t number, Integer(object));
  return number % 2 != 0;
}

Result Even(Runtime&, const Value& object, const CallArguments&) {
  ESSOR_ASSIGN_OR_RETURN(const int64_t number, Integer(object));
  return number % 2 == 0;
}

Result DivisibleBy(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("divisibleby", arguments, {"num"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const int64_t number, Integer(object));
  ESSOR_ASSIGN_OR_RETURN(const int64_t divisor, bound.Int(0, 0));
  if (divisor == 0) return absl::InvalidArgumentError("integer division or modulo by zero");
  return divisor == -1 || number % divisor == 0;
}

template <CompareOperator kOperator>
Result CompareWith(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("test", arguments, {"other"}, 1));
  return ApplyComparison(runtime, kOperator, object, *bound[0]);
}

// Python's `is`: scalars by type and value, everything else by identity.
Result SameAs(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("sameas", arguments, {"other"}, 1));
  const Value& other = *bound[0];
  if (object.variant().index() != other.variant().index()) return false;
  if (object.is_string()) return *object.as_text() == *other.as_text();
  return object.variant() == other.variant();
}

struct TestEntry {
  std::string_view name;
  TestFunction function;
};

constexpr TestEntry kTests[] = {
    {"!=", CompareWith<CompareOperator::kNotEqual>},
    {"<", CompareWith<CompareOperator::kLess>},
    {"<=", CompareWith<CompareOperator::kLessEqual>},
    {"==", CompareWith<CompareOperator::kEqual>},
    {">", CompareWith<CompareOperator::kGreater>},
    {">=", CompareWith<CompareOperator::kGreaterEqual>},
    {"boolean", Check<IsBoolean>},
    {"callable", Check<IsCallable>},
    {"defined", Check<IsDefined>},
    {"divisibleby", DivisibleBy},
    {"eq", CompareWith<CompareOperator::kEqual>},
    {"equalto", CompareWith<CompareOperator::kEqual>},
    {"escaped", Check<IsEscaped>},
    {"even", Even},
    {"false", Check<IsFalseConstant>},
    {"filter", Check<IsFilterName>},
    {"float", Check<IsFloat>},
    {"ge", CompareWith<CompareOperator::kGreaterEqual>},
    {"greaterthan", CompareWith<CompareOperator::kGreater>},
    {"gt", CompareWith<CompareOperator::kGreater>},
    {"in", CompareWith<CompareOperator::kIn>},
    {"integer", Check<IsInteger>},
    {"iterable", Check<IsIterable>},
    {"le", CompareWith<CompareOperator::kLessEqual>},
    {"lessthan", CompareWith<CompareOperator::kLess>},
    {"lower", HasCase<Lower, Upper>},
    {"lt", CompareWith<CompareOperator::kLess>},
    {"mapping", Check<IsMapping>},
    {"ne", CompareWith<CompareOperator::kNotEqual>},
    {"none", Check<IsNone>},
    {"number", Check<IsNumber>},
    {"odd", Odd},
    {"sameas", SameAs},
    {"sequence", Check<IsSequence>},
    {"string", Check<IsString>},
    {"test", Check<IsTestName>},
    {"true", Check<IsTrueConstant>},
    {"undefined", Check<IsUndefined>},
    {"upper", HasCase<Upper, Lower>},
};

}  // namespace

TestFunction FindTest(std::string_view name) {
  const auto* it = std::find_if(std::begin(kTests), std::end(kTests),
                                [name](const TestEntry& entry) { return entry.name == name; });
  return it == std::end(kTests) ? nullptr : it->function;
}

}  // namespace essor::model::jinja
