// Filters that apply another filter or test to each item, and the table of all filters.
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/attribute_path.h"
#include "model/chat/builtins.h"

namespace essor::model::jinja {
namespace {

CallArguments WithoutFirst(const CallArguments& arguments, size_t count) {
  CallArguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<int64_t>(count));
  return rest;
}

// map(attribute='a', default=x) or map('filter', arguments...).
absl::StatusOr<Value> Map(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Iterate(object));
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(items->items.size()));
  std::vector<Value> result;
  if (arguments.positional.empty()) {
    ESSOR_ASSIGN_OR_RETURN(const auto bound,
                           BoundArguments::Bind("map", arguments, {"attribute", "default"}, 1));
    ESSOR_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::From(bound[0]));
    for (const Value& item : items->items) {
      ESSOR_ASSIGN_OR_RETURN(Value value, path.Get(runtime, item, bound[1]));
      result.push_back(std::move(value));
    }
    return MakeList(std::move(result), ListKind::kGenerator);
  }
  const std::string* name = arguments.positional[0].as_text();
  const FilterFunction filter = name == nullptr ? nullptr : FindFilter(*name);
  if (filter == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("map(): no filter named '%s'", name == nullptr ? "" : *name));
  }
  const CallArguments rest = WithoutFirst(arguments, 1);
  for (const Value& item : items->items) {
    ESSOR_ASSIGN_OR_RETURN(Value value, filter(runtime, item, rest));
    result.push_back(std::move(value));
  }
  return MakeList(std::move(result), ListKind::kGenerator);
}

// Keeps the items (or with kAttribute, those whose attribute) for which the test, or without a test
// their truth, is kKeep.
template <bool kKeep, bool kAttribute>
absl::StatusOr<Value> Select(Runtime& runtime, const Value& object,
                             const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Iterate(object));
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(items->items.size()));
  if (kAttribute && arguments.positional.empty()) {
    return TypeError("Missing parameter for attribute name");
  }
  ESSOR_ASSIGN_OR_RETURN(const AttributePath path,
                         AttributePath::From(kAttribute ? arguments.positional.data() : nullptr));
  constexpr size_t kTestAt = kAttribute ? 1 : 0;
  TestFunction test = nullptr;
  CallArguments rest;
  if (arguments.positional.size() > kTestAt) {
    const std::string* name = arguments.positional[kTestAt].as_text();
    test = name == nullptr ? nullptr : FindTest(*name);
    if (test == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrFormat("no test named '%s'", name == nullptr ? "" : *name));
    }
    rest = WithoutFirst(arguments, kTestAt + 1);
  }
  std::vector<Value> result;
  for (const Value& item : items->items) {
    ESSOR_ASSIGN_OR_RETURN(const Value value, path.Get(runtime, item));
    bool passes = IsTrue(value);
    if (test != nullptr) {
      ESSOR_ASSIGN_OR_RETURN(passes, test(runtime, value, rest));
    }
    if (passes == kKeep) result.push_back(item);
  }
  return MakeList(std::move(result), ListKind::kGenerator);
}

}  // namespace

std::vector<FilterEntry> SelectionFilters() {
  return {
      {"map", Map},
      {"reject", Select<false, false>},
      {"rejectattr", Select<false, true>},
      {"select", Select<true, false>},
      {"selectattr", Select<true, true>},
  };
}

FilterFunction FindFilter(std::string_view name) {
  using Table = absl::flat_hash_map<std::string, FilterFunction>;
  static const Table* const table = [] {
    auto* result = new Table();  // never destroyed
    for (const auto& entries : {TextFilters(), SequenceFilters(), SelectionFilters()}) {
      for (const FilterEntry& entry : entries) (*result)[std::string(entry.name)] = entry.function;
    }
    return result;
  }();
  const auto it = table->find(std::string(name));
  return it == table->end() ? nullptr : it->second;
}

}  // namespace essor::model::jinja
