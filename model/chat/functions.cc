// The global functions.
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/operators.h"

namespace essor::model::jinja {
namespace {

// The limit of Jinja's sandbox.
constexpr int64_t kRangeMax = 100000;
// Marks a status as the template's own message.
constexpr char kRaisedUrl[] = "essor/raise_exception";

absl::StatusOr<Value> Range(Runtime& runtime, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("range", arguments, {"start", "stop", "step"}, 1));
  const bool only_stop = bound[1] == nullptr;
  ESSOR_ASSIGN_OR_RETURN(const int64_t first, bound.Int(0, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t second, bound.Int(1, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t step, bound.Int(2, 1));
  if (step == 0) return absl::InvalidArgumentError("range() arg 3 must not be zero");
  const int64_t start = only_stop ? 0 : first;
  const int64_t stop = only_stop ? first : second;
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == kRangeMax) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", kRangeMax));
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(items.size()));
  return MakeList(std::move(items));
}

// dict(mapping or pairs, name=value, ...).
absl::StatusOr<Dict> MakeDict(Runtime& runtime, const CallArguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) return TypeError("dict expected at most 1 argument");
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (const Dict* other = source.as_dict()) {
      dict = *other;
      ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(dict.size()));
    } else {
      ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> pairs, Iterate(source));
      ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(pairs->items.size()));
      for (const Value& item : pairs->items) {
        ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> pair, Iterate(item));
        if (pair->items.size() != 2) return TypeError("dict() needs pairs of key and value");
        ESSOR_RETURN_IF_ERROR(dict.Set(pair->items[0], pair->items[1]));
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) {
    ESSOR_RETURN_IF_ERROR(dict.Set(Value(name), value));
  }
  return dict;
}

absl::StatusOr<Value> MakeJoiner(const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("joiner", arguments, {"sep"}, 0));
  auto joiner = std::make_shared<Callable>();
  joiner->kind = Callable::Kind::kJoiner;
  joiner->name = "joiner";
  ESSOR_ASSIGN_OR_RETURN(joiner->separator, bound.Text(0, ", "));
  return Value(std::move(joiner));
}

}  // namespace

std::vector<std::string> FunctionNames() {
  return {"range", "dict", "namespace", "joiner", "raise_exception", "strftime_now"};
}

absl::StatusOr<Value> CallFunction(Runtime& runtime, const std::string& name,
                                   const CallArguments& arguments,
                                   std::vector<std::shared_ptr<Namespace>>* made) {
  if (name == "range") return Range(runtime, arguments);
  if (name == "joiner") return MakeJoiner(arguments);
  if (name == "dict") {
    ESSOR_ASSIGN_OR_RETURN(Dict dict, MakeDict(runtime, arguments));
    return Value(std::make_shared<const Dict>(std::move(dict)));
  }
  if (name == "namespace") {
    auto space = std::make_shared<Namespace>();
    ESSOR_ASSIGN_OR_RETURN(space->fields, MakeDict(runtime, arguments));
    made->push_back(space);
    return Value(std::move(space));
  }
  if (name == "raise_exception") {
    ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"message"}, 1));
    absl::Status status = absl::InvalidArgumentError(SoftText(*bound[0]));
    status.SetPayload(kRaisedUrl, absl::Cord());
    return status;
  }
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"format"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::string format, bound.Text(0, ""));
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(format.size() * 64));
  return Value(FormatTime(format, runtime.now()));
}

bool IsRaisedByTemplate(const absl::Status& status) {
  return status.GetPayload(kRaisedUrl).has_value();
}

}  // namespace essor::model::jinja
