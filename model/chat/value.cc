#include "model/chat/value.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/python_format.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

constexpr double kTwo63 = 9223372036854775808.0;

// One text per equivalence class of keys.
absl::StatusOr<std::string> HashKey(const Value& key) {
  if (const std::string* text = key.as_text()) return absl::StrCat("s", *text);
  if (key.is_none()) return std::string("n");
  if (key.is_bool() || key.is_int()) return absl::StrCat("i", key.ToInt());
  if (const double* number = key.as_float()) {
    if (std::trunc(*number) == *number && *number >= -kTwo63 && *number < kTwo63) {
      return absl::StrCat("i", static_cast<int64_t>(*number));
    }
    return absl::StrCat("f", FormatFloat(*number));
  }
  if (const BigInt* big = key.as_big_int()) return absl::StrCat("i", big->digits);
  if (key.is_undefined()) return std::string("u");
  const List* list = key.as_list();
  if (list != nullptr && list->kind == ListKind::kTuple) {
    std::string result = "t";
    for (const Value& item : list->items) {
      ESSOR_ASSIGN_OR_RETURN(const std::string part, HashKey(item));
      absl::StrAppend(&result, part.size(), ":", part);
    }
    return result;
  }
  return TypeError(absl::StrFormat("unhashable type: '%s'", TypeName(key)));
}

// Orders decimal integers given as text.
int CompareDigits(std::string_view a, std::string_view b) {
  const bool a_negative = a.front() == '-';
  const bool b_negative = b.front() == '-';
  if (a_negative != b_negative) return a_negative ? -1 : 1;
  int order = a.size() != b.size() ? (a.size() < b.size() ? -1 : 1) : a.compare(b);
  order = order < 0 ? -1 : (order > 0 ? 1 : 0);
  return a_negative ? -order : order;
}

bool IsNumber(const Value& value) {
  return value.is_small_number() || value.as_big_int() != nullptr;
}

std::string Digits(const Value& integer) {
  const BigInt* big = integer.as_big_int();
  return big != nullptr ? big->digits : absl::StrCat(integer.ToInt());
}

// -1, 0, 1, or 2 when a NaN makes them unordered.
int CompareNumbers(const Value& a, const Value& b) {
  const auto as_double = [](const Value& value) {
    if (!value.as_big_int()) return value.ToDouble();
    return std::strtod(value.as_big_int()->digits.c_str(), nullptr);
  };
  if (a.is_float() || b.is_float()) {
    const double x = as_double(a);
    const double y = as_double(b);
    if (std::isnan(x) || std::isnan(y)) return 2;
    return x < y ? -1 : (x > y ? 1 : 0);
  }
  if (a.as_big_int() || b.as_big_int()) return CompareDigits(Digits(a), Digits(b));
  return a.ToInt() < b.ToInt() ? -1 : (a.ToInt() > b.ToInt() ? 1 : 0);
}

bool EqualLists(const List& a, const List& b) {
  return a.kind == b.kind &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(), Equal);
}

bool EqualDicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.Find(key);
    if (other == nullptr || !Equal(value, *other)) return false;
  }
  return true;
}

}  // namespace

const std::string* Value::as_text() const {
  const String* string = as_string();
  return string == nullptr ? nullptr : &string->text;
}

absl::StatusOr<Value> MakeList(std::vector<Value> items, ListKind kind) {
  Extent extent{.depth = 1};
  for (const Value& item : items) extent = extent.Plus(ExtentOf(item));
  ESSOR_RETURN_IF_ERROR(extent.Check());
  return Value(std::make_shared<const List>(List{std::move(items), kind, extent}));
}

size_t Dict::FindIndex(const std::string& hash_key) const {
  if (!index_.empty()) {
    const auto it = index_.find(hash_key);
    return it == index_.end() ? entries_.size() : it->second;
  }
  return static_cast<size_t>(std::find(hash_keys_.begin(), hash_keys_.end(), hash_key) -
                             hash_keys_.begin());
}

absl::Status Dict::Set(const Value& key, Value value) {
  ESSOR_ASSIGN_OR_RETURN(std::string hash_key, HashKey(key));
  const Extent extent = extent_.Plus(ExtentOf(key)).Plus(ExtentOf(value));
  ESSOR_RETURN_IF_ERROR(extent.Check());
  extent_ = extent;
  const size_t index = FindIndex(hash_key);
  if (index < entries_.size()) {
    entries_[index].second = std::move(value);
    return absl::OkStatus();
  }
  entries_.emplace_back(key, std::move(value));
  hash_keys_.push_back(std::move(hash_key));
  if (entries_.size() == kIndexFrom) {
    for (size_t i = 0; i < entries_.size(); ++i) index_[hash_keys_[i]] = i;
  } else if (entries_.size() > kIndexFrom) {
    index_[hash_keys_.back()] = entries_.size() - 1;
  }
  return absl::OkStatus();
}

const Value* Dict::Find(const Value& key) const {
  const absl::StatusOr<std::string> hash_key = HashKey(key);
  if (!hash_key.ok()) return nullptr;
  const size_t index = FindIndex(*hash_key);
  return index < entries_.size() ? &entries_[index].second : nullptr;
}

const Value* Dict::FindText(std::string_view key) const { return Find(Value(key)); }

Extent Extent::Plus(const Extent& item) const {
  return {.depth = std::max(depth, item.depth + 1), .weight = weight + item.weight};
}

absl::Status Extent::Check() const {
  if (depth > kValueDepthMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("values nested deeper than %d", kValueDepthMax));
  }
  if (weight > kValueWeightMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a value of more than %d bytes", kValueWeightMax));
  }
  return absl::OkStatus();
}

Extent ExtentOf(const Value& value) {
  if (const std::string* text = value.as_text()) return {.depth = 0, .weight = text->size() + 16};
  if (const BigInt* big = value.as_big_int()) return {.depth = 0, .weight = big->digits.size() + 8};
  if (const List* list = value.as_list()) return list->extent;
  if (const Dict* dict = value.as_dict()) return dict->extent();
  // These two hold values, but are not written out with them.
  if (const Loop* loop = value.as_loop()) return {.depth = loop->items->extent.depth + 1};
  if (const Callable* callable = value.as_callable()) {
    return {.depth = ExtentOf(callable->receiver).depth};
  }
  return {};
}

std::string_view TypeName(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.is_bool()) return "bool";
  if (value.is_int() || value.as_big_int()) return "int";
  if (value.is_float()) return "float";
  if (value.is_string()) return value.as_string()->markup ? "Markup" : "str";
  if (value.as_dict()) return "dict";
  if (value.as_namespace()) return "Namespace";
  if (value.as_loop()) return "LoopContext";
  if (const Callable* callable = value.as_callable()) {
    return callable->kind == Callable::Kind::kMacro ? "Macro" : "function";
  }
  switch (value.as_list()->kind) {
    case ListKind::kList:
      return "list";
    case ListKind::kTuple:
      return "tuple";
    case ListKind::kKeys:
      return "dict_keys";
    case ListKind::kValues:
      return "dict_values";
    case ListKind::kItems:
      return "dict_items";
    case ListKind::kGenerator:
      break;
  }
  return "generator";
}

bool IsTrue(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_small_number())
    return value.is_float() ? *value.as_float() != 0 : value.ToInt() != 0;
  if (const std::string* text = value.as_text()) return !text->empty();
  if (const Dict* dict = value.as_dict()) return dict->size() != 0;
  // A generator cannot know that it is empty.
  if (const List* list = value.as_list()) {
    return list->kind == ListKind::kGenerator || !list->items.empty();
  }
  return true;
}

bool Equal(const Value& a, const Value& b) {
  if (IsNumber(a) && IsNumber(b)) return CompareNumbers(a, b) == 0;
  if (a.variant().index() != b.variant().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.is_string()) return *a.as_text() == *b.as_text();
  if (a.as_list()) return EqualLists(*a.as_list(), *b.as_list());
  if (a.as_dict()) return EqualDicts(*a.as_dict(), *b.as_dict());
  return a.variant() == b.variant();  // the same object
}

absl::StatusOr<int> Compare(const Value& a, const Value& b, std::string_view op) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (IsNumber(a) && IsNumber(b)) return CompareNumbers(a, b);
  if (a.is_string() && b.is_string()) {
    // The order of UTF-8's bytes is that of code points.
    const int order = a.as_text()->compare(*b.as_text());
    return order < 0 ? -1 : (order > 0 ? 1 : 0);
  }
  const List* x = a.as_list();
  const List* y = b.as_list();
  if (x != nullptr && y != nullptr && x->kind == y->kind && x->kind <= ListKind::kTuple) {
    for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i) {
      if (!Equal(x->items[i], y->items[i])) return Compare(x->items[i], y->items[i], op);
    }
    if (x->items.size() == y->items.size()) return 0;
    return x->items.size() < y->items.size() ? -1 : 1;
  }
  return TypeError(absl::StrFormat("'%s' not supported between instances of '%s' and '%s'", op,
                                   TypeName(a), TypeName(b)));
}

absl::Status UndefinedError(const Value& undefined) {
  return absl::InvalidArgumentError(undefined.as_undefined()->reason);
}

absl::Status TypeError(std::string message) {
  return absl::InvalidArgumentError(std::move(message));
}

absl::StatusOr<std::shared_ptr<const List>> Iterate(const Value& value) {
  if (const auto* list = std::get_if<std::shared_ptr<const List>>(&value.variant())) return *list;
  auto result = std::make_shared<List>();
  result->kind = ListKind::kGenerator;
  if (value.is_undefined()) return std::shared_ptr<const List>(std::move(result));
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, item] : dict->entries()) result->items.push_back(key);
    result->extent = dict->extent();
    return std::shared_ptr<const List>(std::move(result));
  }
  if (const std::string* text = value.as_text()) {
    for (size_t i = 0; i < text->size();) {
      const CodePoint c = DecodeUtf8(text->data() + i);
      result->items.emplace_back(std::string_view(*text).substr(i, c.size));
      i += c.size;
    }
    result->extent.weight += text->size() * 24;
    return std::shared_ptr<const List>(std::move(result));
  }
  if (const Loop* loop = value.as_loop()) return loop->items;
  return TypeError(absl::StrFormat("'%s' object is not iterable", TypeName(value)));
}

}  // namespace essor::model::jinja
