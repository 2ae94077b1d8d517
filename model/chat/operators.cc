#include "model/chat/operators.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/python_format.h"
#include "model/chat/text.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

const char* Symbol(BinaryOperator op) {
  switch (op) {
    case BinaryOperator::kAdd:
      return "+";
    case BinaryOperator::kSubtract:
      return "-";
    case BinaryOperator::kMultiply:
      return "*";
    case BinaryOperator::kDivide:
      return "/";
    case BinaryOperator::kFloorDivide:
      return "//";
    case BinaryOperator::kModulo:
      return "%";
    case BinaryOperator::kPower:
      break;
  }
  return "** or pow()";
}

absl::Status Unsupported(BinaryOperator op, const Value& left, const Value& right) {
  return TypeError(absl::StrFormat("unsupported operand type(s) for %s: '%s' and '%s'", Symbol(op),
                                   TypeName(left), TypeName(right)));
}

absl::Status Overflow() {
  return absl::InvalidArgumentError("integers beyond 64 bits support no arithmetic");
}

absl::StatusOr<Value> Power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return absl::InvalidArgumentError("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> IntegerArithmetic(BinaryOperator op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case BinaryOperator::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case BinaryOperator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case BinaryOperator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case BinaryOperator::kDivide:
      if (b == 0) return absl::InvalidArgumentError("division by zero");
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOperator::kFloorDivide:
    case BinaryOperator::kModulo: {
      if (b == 0) return absl::InvalidArgumentError("integer division or modulo by zero");
      if (b == -1) {
        if (op == BinaryOperator::kModulo) return Value(0);
        overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      // Python rounds down, C++ towards zero.
      const bool adjust = a % b != 0 && (a % b < 0) != (b < 0);
      if (op == BinaryOperator::kModulo) return Value(adjust ? a % b + b : a % b);
      return Value(adjust ? a / b - 1 : a / b);
    }
    case BinaryOperator::kPower:
      return Power(a, b);
  }
  if (overflow) return Overflow();
  return Value(result);
}

absl::StatusOr<Value> FloatArithmetic(BinaryOperator op, double a, double b) {
  switch (op) {
    case BinaryOperator::kAdd:
      return Value(a + b);
    case BinaryOperator::kSubtract:
      return Value(a - b);
    case BinaryOperator::kMultiply:
      return Value(a * b);
    case BinaryOperator::kDivide:
      if (b == 0) return absl::InvalidArgumentError("float division by zero");
      return Value(a / b);
    case BinaryOperator::kFloorDivide:
      if (b == 0) return absl::InvalidArgumentError("float floor division by zero");
      return Value(std::floor(a / b));
    case BinaryOperator::kModulo: {
      if (b == 0) return absl::InvalidArgumentError("float modulo by zero");
      const double rest = std::fmod(a, b);
      return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
    case BinaryOperator::kPower:
      break;
  }
  return Value(std::pow(a, b));
}

absl::StatusOr<Value> AddText(Runtime& runtime, const String& left, const String& right) {
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(left.text.size() + right.text.size()));
  if (left.markup == right.markup) {
    std::string sum = absl::StrCat(left.text, right.text);
    return left.markup ? Value::Markup(std::move(sum)) : Value(std::move(sum));
  }
  return Value::Markup(absl::StrCat(left.markup ? left.text : EscapeHtml(left.text),
                                    right.markup ? right.text : EscapeHtml(right.text)));
}

absl::StatusOr<Value> Add(Runtime& runtime, const Value& left, const Value& right) {
  if (left.is_string()) {
    if (right.is_string()) return AddText(runtime, *left.as_string(), *right.as_string());
    return TypeError(
        absl::StrFormat("can only concatenate str (not \"%s\") to str", TypeName(right)));
  }
  const List* a = left.as_list();
  const List* b = right.as_list();
  if (a != nullptr && a->kind <= ListKind::kTuple) {
    if (b == nullptr || b->kind != a->kind) {
      return TypeError(absl::StrFormat("can only concatenate %s (not \"%s\") to %s", TypeName(left),
                                       TypeName(right), TypeName(left)));
    }
    ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(a->items.size() + b->items.size()));
    std::vector<Value> items = a->items;
    items.insert(items.end(), b->items.begin(), b->items.end());
    return MakeList(std::move(items), a->kind);
  }
  return Unsupported(BinaryOperator::kAdd, left, right);
}

// text * count or list * count.
absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& sequence, int64_t count) {
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  if (const String* string = sequence.as_string()) {
    uint64_t size = 0;
    if (__builtin_mul_overflow(times, uint64_t{string->text.size()}, &size)) size = UINT64_MAX;
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(size));
    std::string result;
    result.reserve(size);
    if (!string->text.empty()) {
      for (uint64_t i = 0; i < times; ++i) result.append(string->text);
    }
    return string->markup ? Value::Markup(std::move(result)) : Value(std::move(result));
  }
  const List& list = *sequence.as_list();
  uint64_t size = 0;
  if (__builtin_mul_overflow(times, uint64_t{list.items.size()}, &size)) size = UINT64_MAX / 2;
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(size));
  std::vector<Value> items;
  if (!list.items.empty()) {
    for (uint64_t i = 0; i < times; ++i) {
      items.insert(items.end(), list.items.begin(), list.items.end());
    }
  }
  return MakeList(std::move(items), list.kind);
}

bool IsRepeatable(const Value& value) {
  return value.is_string() || (value.as_list() && value.as_list()->kind <= ListKind::kTuple);
}

// The position in a sequence of `size` that Python's `index` means, or -1.
int64_t ResolveIndex(int64_t index, size_t size) {
  const auto count = static_cast<int64_t>(size);
  if (index < 0) index += count;
  return index >= 0 && index < count ? index : -1;
}

Value NoElement(const Value& object, const Value& index) {
  return Value::MakeUndefined(
      index.is_string()
          ? absl::StrFormat("'%s object' has no attribute '%s'", TypeName(object), *index.as_text())
          : absl::StrFormat("%s object has no element %s", TypeName(object), ToRepr(index)));
}

// Names that Jinja's sandbox keeps templates from.
bool IsUnsafeAttribute(const Value& object, const std::string& name) {
  if (name.substr(0, 2) == "__") return true;
  constexpr std::string_view kListMutators[] = {"append", "clear",  "extend",  "insert",
                                                "pop",    "remove", "reverse", "sort"};
  constexpr std::string_view kDictMutators[] = {"clear",      "pop",    "popitem",
                                                "setdefault", "update", "fromkeys"};
  const auto contains = [&name](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (object.as_list() && object.as_list()->kind == ListKind::kList) return contains(kListMutators);
  return object.as_dict() != nullptr && contains(kDictMutators);
}

Value LoopAttribute(const Loop& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items->items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == length);
  if (name == "length") return Value(length);
  if (name == "depth") return Value(loop.depth);
  if (name == "depth0") return Value(loop.depth - 1);
  if (name == "previtem") {
    return index > 0 ? loop.items->items[loop.index - 1]
                     : Value::MakeUndefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < length ? loop.items->items[loop.index + 1]
                              : Value::MakeUndefined("there is no next item");
  }
  return Value::MakeUndefined(absl::StrFormat("'LoopContext object' has no attribute '%s'", name));
}

Value MakeMethod(const Value& receiver, const std::string& name) {
  auto method = std::make_shared<Callable>();
  method->kind = Callable::Kind::kMethod;
  method->name = name;
  method->receiver = receiver;
  return Value(std::move(method));
}

// The step-wise positions of a slice over `size` items.
absl::StatusOr<std::vector<size_t>> SlicePositions(size_t size, const Value& start,
                                                   const Value& stop, const Value& step) {
  const auto read = [](const Value& part, int64_t absent) -> absl::StatusOr<int64_t> {
    if (part.is_none()) return absent;
    if (part.is_undefined()) return UndefinedError(part);
    if (part.is_bool() || part.is_int()) return part.ToInt();
    return TypeError("slice indices must be integers or None");
  };
  const auto count = static_cast<int64_t>(size);
  ESSOR_ASSIGN_OR_RETURN(const int64_t by, read(step, 1));
  if (by == 0) return absl::InvalidArgumentError("slice step cannot be zero");
  const int64_t lowest = by > 0 ? 0 : -1;
  const int64_t highest = by > 0 ? count : count - 1;
  const auto clamp = [&](int64_t position) {
    return std::clamp(position < 0 ? position + count : position, lowest, highest);
  };
  const bool has_start = !start.is_none();
  const bool has_stop = !stop.is_none();
  ESSOR_ASSIGN_OR_RETURN(int64_t from, read(start, 0));
  ESSOR_ASSIGN_OR_RETURN(int64_t to, read(stop, 0));
  from = has_start ? clamp(from) : (by > 0 ? 0 : count - 1);
  to = has_stop ? clamp(to) : (by > 0 ? count : -1);
  std::vector<size_t> positions;
  while (by > 0 ? from < to : from > to) {
    positions.push_back(static_cast<size_t>(from));
    if (__builtin_add_overflow(from, by, &from)) break;
  }
  return positions;
}

}  // namespace

absl::StatusOr<Value> ApplyBinary(Runtime& runtime, BinaryOperator op, const Value& left,
                                  const Value& right) {
  if (left.is_undefined()) return UndefinedError(left);
  if (op == BinaryOperator::kModulo && left.is_string()) {
    const List* list = right.as_list();
    const bool tuple = list != nullptr && list->kind == ListKind::kTuple;
    ESSOR_ASSIGN_OR_RETURN(
        std::string text,
        FormatPercent(runtime, *left.as_text(), tuple ? list->items : std::vector<Value>{right},
                      right.as_dict()));
    return Value(std::move(text));
  }
  if (right.is_undefined()) return UndefinedError(right);
  if (left.is_small_number() && right.is_small_number()) {
    if (left.is_float() || right.is_float()) {
      return FloatArithmetic(op, left.ToDouble(), right.ToDouble());
    }
    return IntegerArithmetic(op, left.ToInt(), right.ToInt());
  }
  if (left.as_big_int() || right.as_big_int()) return Overflow();
  if (op == BinaryOperator::kAdd) return Add(runtime, left, right);
  if (op == BinaryOperator::kMultiply) {
    const auto is_count = [](const Value& value) { return value.is_int() || value.is_bool(); };
    if (IsRepeatable(left) && is_count(right)) return Repeat(runtime, left, right.ToInt());
    if (IsRepeatable(right) && is_count(left)) return Repeat(runtime, right, left.ToInt());
  }
  return Unsupported(op, left, right);
}

absl::StatusOr<Value> ApplySign(bool minus, const Value& operand) {
  if (operand.is_undefined()) return UndefinedError(operand);
  if (operand.is_float()) return Value(minus ? -*operand.as_float() : *operand.as_float());
  if (operand.is_small_number()) {
    return minus ? IntegerArithmetic(BinaryOperator::kSubtract, 0, operand.ToInt())
                 : absl::StatusOr<Value>(Value(operand.ToInt()));
  }
  if (const BigInt* big = operand.as_big_int()) {
    if (!minus) return operand;
    return IntegerFromDigits(big->digits[0] == '-' ? big->digits.substr(1) : "-" + big->digits);
  }
  return TypeError(
      absl::StrFormat("bad operand type for unary %s: '%s'", minus ? "-" : "+", TypeName(operand)));
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const std::string* text = container.as_text()) {
    if (item.is_undefined()) return UndefinedError(item);
    const std::string* part = item.as_text();
    if (part == nullptr) {
      return TypeError(
          absl::StrFormat("'in <string>' requires string as left operand, not %s", TypeName(item)));
    }
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size()));
    return text->find(*part) != std::string::npos;
  }
  if (const Dict* dict = container.as_dict()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(item));
    if (item.as_dict() || (item.as_list() && item.as_list()->kind != ListKind::kTuple)) {
      return TypeError(absl::StrFormat("unhashable type: '%s'", TypeName(item)));
    }
    return dict->Find(item) != nullptr;
  }
  if (container.as_list() || container.is_undefined()) {
    ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Iterate(container));
    ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(items->items.size()));
    if (item.as_list() || item.as_dict()) ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(container));
    return std::any_of(items->items.begin(), items->items.end(),
                       [&item](const Value& other) { return Equal(item, other); });
  }
  return TypeError(absl::StrFormat("argument of type '%s' is not iterable", TypeName(container)));
}

absl::StatusOr<bool> ApplyComparison(Runtime& runtime, CompareOperator op, const Value& left,
                                     const Value& right) {
  if (op == CompareOperator::kIn) return Contains(runtime, right, left);
  if (op == CompareOperator::kNotIn) {
    ESSOR_ASSIGN_OR_RETURN(const bool contains, Contains(runtime, right, left));
    return !contains;
  }
  ESSOR_RETURN_IF_ERROR(
      runtime.ChargeBytes(std::min(ExtentOf(left).weight, ExtentOf(right).weight)));
  switch (op) {
    case CompareOperator::kEqual:
      return Equal(left, right);
    case CompareOperator::kNotEqual:
      return !Equal(left, right);
    case CompareOperator::kLess: {
      ESSOR_ASSIGN_OR_RETURN(const int order, Compare(left, right, "<"));
      return order == -1;
    }
    case CompareOperator::kLessEqual: {
      ESSOR_ASSIGN_OR_RETURN(const int order, Compare(left, right, "<="));
      return order <= 0;
    }
    case CompareOperator::kGreater: {
      ESSOR_ASSIGN_OR_RETURN(const int order, Compare(left, right, ">"));
      return order == 1;
    }
    case CompareOperator::kGreaterEqual: {
      ESSOR_ASSIGN_OR_RETURN(const int order, Compare(left, right, ">="));
      return order == 0 || order == 1;
    }
    case CompareOperator::kIn:
    case CompareOperator::kNotIn:
      break;
  }
  return false;
}

absl::StatusOr<Value> LookUpAttribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) return UndefinedError(object);
  if (const Namespace* space = object.as_namespace()) {
    const Value* field = space->fields.FindText(name);
    return field != nullptr ? *field
                            : Value::MakeUndefined(absl::StrFormat(
                                  "'Namespace object' has no attribute '%s'", name));
  }
  if (HasMethod(object, name)) return MakeMethod(object, name);
  if (const Loop* loop = object.as_loop()) return LoopAttribute(*loop, name);
  if (const Dict* dict = object.as_dict()) {
    if (const Value* item = dict->FindText(name)) return *item;
  }
  if (IsUnsafeAttribute(object, name)) {
    return Value::MakeUndefined(absl::StrFormat(
        "access to attribute '%s' of '%s' object is unsafe.", name, TypeName(object)));
  }
  if (object.is_none()) {
    return Value::MakeUndefined(absl::StrFormat("'None' has no attribute '%s'", name));
  }
  return Value::MakeUndefined(
      absl::StrFormat("'%s object' has no attribute '%s'", TypeName(object), name));
}

absl::StatusOr<Value> LookUpItem(Runtime& runtime, const Value& object, const Value& index) {
  if (object.is_undefined()) return UndefinedError(object);
  if (const Dict* dict = object.as_dict()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(index));
    if (const Value* item = dict->Find(index)) return *item;
  } else if (index.is_int() || index.is_bool()) {
    if (const List* list = object.as_list(); list && list->kind <= ListKind::kTuple) {
      const int64_t position = ResolveIndex(index.ToInt(), list->items.size());
      return position < 0 ? NoElement(object, index) : list->items[position];
    }
    if (const std::string* text = object.as_text()) {
      ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size()));
      const std::vector<size_t> offsets = CodePointOffsets(*text);
      const int64_t position = ResolveIndex(index.ToInt(), offsets.size() - 1);
      if (position < 0) return NoElement(object, index);
      return Value(std::string_view(*text).substr(offsets[position],
                                                  offsets[position + 1] - offsets[position]));
    }
  }
  // object["name"] falls back to the attribute.
  if (index.is_string()) return LookUpAttribute(object, *index.as_text());
  return NoElement(object, index);
}

absl::StatusOr<Value> LookUpSlice(Runtime& runtime, const Value& object, const Value& start,
                                  const Value& stop, const Value& step) {
  if (object.is_undefined()) return UndefinedError(object);
  if (const List* list = object.as_list(); list && list->kind <= ListKind::kTuple) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(list->items.size()));
    ESSOR_ASSIGN_OR_RETURN(const std::vector<size_t> positions,
                           SlicePositions(list->items.size(), start, stop, step));
    std::vector<Value> items;
    for (const size_t position : positions) items.push_back(list->items[position]);
    return MakeList(std::move(items), list->kind);
  }
  if (const std::string* text = object.as_text()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size() * 8));
    const std::vector<size_t> offsets = CodePointOffsets(*text);
    ESSOR_ASSIGN_OR_RETURN(const std::vector<size_t> positions,
                           SlicePositions(offsets.size() - 1, start, stop, step));
    std::string result;
    for (const size_t position : positions) {
      result.append(*text, offsets[position], offsets[position + 1] - offsets[position]);
    }
    return Value(std::move(result));
  }
  // Jinja turns the failure of a subscript into an undefined value.
  return Value::MakeUndefined(absl::StrFormat("'%s' object cannot be sliced", TypeName(object)));
}

}  // namespace essor::model::jinja
