// Filters over lists and dicts as wholes.
#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/attribute_path.h"
#include "model/chat/builtins.h"
#include "model/chat/operators.h"
#include "model/chat/python_format.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

using Items = std::shared_ptr<const List>;

absl::StatusOr<Items> Walk(Runtime& runtime, const Value& object) {
  if (const std::string* text = object.as_text()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size() * 32));
  }
  ESSOR_ASSIGN_OR_RETURN(Items items, Iterate(object));
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(items->items.size()));
  return items;
}

absl::StatusOr<Value> Length(Runtime& runtime, const Value& object, const CallArguments&) {
  if (const std::string* text = object.as_text()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size()));
    return Value(static_cast<int64_t>(CountCodePoints(*text)));
  }
  if (object.is_undefined()) return Value(0);
  if (const Dict* dict = object.as_dict()) return Value(static_cast<int64_t>(dict->size()));
  const List* list = object.as_list();
  if (list != nullptr && list->kind != ListKind::kGenerator) {
    return Value(static_cast<int64_t>(list->items.size()));
  }
  return TypeError(absl::StrFormat("object of type '%s' has no len()", TypeName(object)));
}

absl::StatusOr<Value> First(Runtime& runtime, const Value& object, const CallArguments&) {
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  return items->items.empty() ? Value::MakeUndefined("No first item, sequence was empty.")
                              : items->items.front();
}

absl::StatusOr<Value> Last(Runtime& runtime, const Value& object, const CallArguments&) {
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  return items->items.empty() ? Value::MakeUndefined("No last item, sequence was empty.")
                              : items->items.back();
}

absl::StatusOr<Value> ToList(Runtime& runtime, const Value& object, const CallArguments&) {
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  return MakeList(items->items);
}

absl::StatusOr<Value> ItemsFilter(Runtime& runtime, const Value& object, const CallArguments&) {
  if (object.is_undefined()) return MakeList({}, ListKind::kGenerator);
  const Dict* dict = object.as_dict();
  if (dict == nullptr) return TypeError("Can only get item pairs from a mapping.");
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(dict->size()));
  return DictItems(*dict, ListKind::kGenerator);
}

absl::StatusOr<Value> Join(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("join", arguments, {"d", "attribute"}, 0));
  const std::string separator = bound[0] == nullptr ? "" : SoftText(*bound[0]);
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[1]));
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  std::string result;
  for (size_t i = 0; i < items->items.size(); ++i) {
    ESSOR_ASSIGN_OR_RETURN(const Value item, path.Get(runtime, items->items[i]));
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(ExtentOf(item).weight + separator.size()));
    if (i > 0) result.append(separator);
    result.append(SoftText(item));
  }
  return Value(std::move(result));
}

absl::StatusOr<Value> Default(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("default", arguments,
                                                                {"default_value", "boolean"}, 0));
  const bool replace = object.is_undefined() || (bound.Truth(1, false) && !IsTrue(object));
  if (!replace) return object;
  return bound[0] == nullptr ? Value("") : *bound[0];
}

// Positions of `keys` in stable order.
absl::StatusOr<std::vector<size_t>> SortedOrder(Runtime& runtime, const std::vector<Value>& keys,
                                                bool reverse) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  absl::Status error;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!error.ok()) return false;
    const Value& x = reverse ? keys[b] : keys[a];
    const Value& y = reverse ? keys[a] : keys[b];
    const absl::StatusOr<bool> less = ApplyComparison(runtime, CompareOperator::kLess, x, y);
    if (!less.ok()) error = less.status();
    return less.ok() && *less;
  });
  ESSOR_RETURN_IF_ERROR(error);
  return order;
}

// `items` in the order of `keys`.
absl::StatusOr<Value> SortBy(Runtime& runtime, const std::vector<Value>& items,
                             const std::vector<Value>& keys, bool reverse) {
  ESSOR_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(runtime, keys, reverse));
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return MakeList(std::move(sorted));
}

absl::StatusOr<Value> Sort(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[2]));
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(runtime, items->items, path, bound.Truth(1, false)));
  return SortBy(runtime, items->items, keys, bound.Truth(0, false));
}

absl::StatusOr<Value> DictSort(Runtime& runtime, const Value& object,
                               const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const std::string by, bound.Text(1, "key"));
  if (by != "key" && by != "value") {
    return absl::InvalidArgumentError("You can only sort by either \"key\" or \"value\"");
  }
  const Dict* dict = object.as_dict();
  if (dict == nullptr) {
    return TypeError(absl::StrFormat("dictsort needs a dict, not %s", TypeName(object)));
  }
  ESSOR_ASSIGN_OR_RETURN(const Value pairs, DictItems(*dict, ListKind::kList));
  const Value position(by == "key" ? 0 : 1);
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(&position));
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(runtime, pairs.as_list()->items, path, bound.Truth(0, false)));
  return SortBy(runtime, pairs.as_list()->items, keys, bound.Truth(2, false));
}

absl::StatusOr<Value> Reverse(Runtime& runtime, const Value& object, const CallArguments&) {
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  std::vector<Value> reversed(items->items.rbegin(), items->items.rend());
  if (!object.is_string()) return MakeList(std::move(reversed), ListKind::kGenerator);
  std::string text;
  for (const Value& character : reversed) text.append(*character.as_text());
  return Value(std::move(text));
}

absl::StatusOr<Value> Unique(Runtime& runtime, const Value& object,
                             const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind("unique", arguments, {"case_sensitive", "attribute"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[1]));
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(runtime, items->items, path, bound.Truth(0, false)));
  Dict seen;
  std::vector<Value> result;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (seen.Find(keys[i]) != nullptr) continue;
    ESSOR_RETURN_IF_ERROR(seen.Set(keys[i], Value(true)));
    result.push_back(items->items[i]);
  }
  return MakeList(std::move(result), ListKind::kGenerator);
}

absl::StatusOr<Value> Sum(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("sum", arguments, {"attribute", "start"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[0]));
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  Value total = bound[1] == nullptr ? Value(0) : *bound[1];
  for (const Value& item : items->items) {
    ESSOR_ASSIGN_OR_RETURN(const Value value, path.Get(runtime, item));
    ESSOR_ASSIGN_OR_RETURN(total, ApplyBinary(runtime, BinaryOperator::kAdd, total, value));
  }
  return total;
}

template <bool kLargest>
absl::StatusOr<Value> Extreme(Runtime& runtime, const Value& object,
                              const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind(kLargest ? "max" : "min", arguments,
                                              {"case_sensitive", "attribute"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[1]));
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  if (items->items.empty()) {
    return Value::MakeUndefined("No aggregated item, sequence was empty.");
  }
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(runtime, items->items, path, bound.Truth(0, false)));
  size_t best = 0;
  for (size_t i = 1; i < keys.size(); ++i) {
    const CompareOperator op = kLargest ? CompareOperator::kGreater : CompareOperator::kLess;
    ESSOR_ASSIGN_OR_RETURN(const bool better, ApplyComparison(runtime, op, keys[i], keys[best]));
    if (better) best = i;
  }
  return items->items[best];
}

absl::StatusOr<Value> Batch(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("batch", arguments, {"linecount", "fill_with"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const int64_t size, bound.Int(0, 0));
  if (size < 1) return absl::InvalidArgumentError("batch() of less than one item");
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  std::vector<Value> batches;
  std::vector<Value> batch;
  const auto flush = [&]() -> absl::Status {
    ESSOR_ASSIGN_OR_RETURN(Value list, MakeList(std::exchange(batch, {})));
    batches.push_back(std::move(list));
    return absl::OkStatus();
  };
  for (const Value& item : items->items) {
    batch.push_back(item);
    if (static_cast<int64_t>(batch.size()) == size) ESSOR_RETURN_IF_ERROR(flush());
  }
  if (!batch.empty()) {
    if (bound[1] != nullptr && !bound[1]->is_none()) {
      ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(static_cast<uint64_t>(size)));
      batch.resize(static_cast<size_t>(size), *bound[1]);
    }
    ESSOR_RETURN_IF_ERROR(flush());
  }
  return MakeList(std::move(batches), ListKind::kGenerator);
}

absl::StatusOr<Value> GroupBy(Runtime& runtime, const Value& object,
                              const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[0]));
  ESSOR_ASSIGN_OR_RETURN(const Items items, Walk(runtime, object));
  std::vector<Value> values;
  for (const Value& item : items->items) {
    ESSOR_ASSIGN_OR_RETURN(Value value, path.Get(runtime, item, bound[1]));
    values.push_back(std::move(value));
  }
  ESSOR_ASSIGN_OR_RETURN(const AttributePath whole, AttributePath::From(nullptr));
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Value> keys,
                         SortKeys(runtime, values, whole, bound.Truth(2, false)));
  ESSOR_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(runtime, keys, false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < order.size();) {
    std::vector<Value> members;
    size_t end = begin;
    while (end < order.size() && Equal(keys[order[end]], keys[order[begin]])) {
      members.push_back(items->items[order[end++]]);
    }
    ESSOR_ASSIGN_OR_RETURN(Value list, MakeList(std::move(members)));
    ESSOR_ASSIGN_OR_RETURN(Value group,
                           MakeList({values[order[begin]], std::move(list)}, ListKind::kTuple));
    groups.push_back(std::move(group));
    begin = end;
  }
  return MakeList(std::move(groups));
}

absl::StatusOr<Value> Attribute(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("attr", arguments, {"name"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::string name, bound.Text(0, ""));
  // Unlike a dot, only attributes: no items.
  if (object.as_dict() != nullptr && !HasMethod(object, name)) {
    return Value::MakeUndefined(absl::StrFormat("'dict object' has no attribute '%s'", name));
  }
  return LookUpAttribute(object, name);
}

}  // namespace

absl::StatusOr<Value> DictItems(const Dict& dict, ListKind kind) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries()) {
    ESSOR_ASSIGN_OR_RETURN(Value pair, MakeList({key, value}, ListKind::kTuple));
    items.push_back(std::move(pair));
  }
  return MakeList(std::move(items), kind);
}

std::vector<FilterEntry> SequenceFilters() {
  return {
      {"attr", Attribute},    {"batch", Batch},       {"count", Length},       {"d", Default},
      {"default", Default},   {"dictsort", DictSort}, {"first", First},        {"groupby", GroupBy},
      {"items", ItemsFilter}, {"join", Join},         {"last", Last},          {"length", Length},
      {"list", ToList},       {"max", Extreme<true>}, {"min", Extreme<false>}, {"reverse", Reverse},
      {"sort", Sort},         {"sum", Sum},           {"unique", Unique},
  };
}

}  // namespace essor::model::jinja
