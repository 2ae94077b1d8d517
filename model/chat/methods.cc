// Methods of strings, dicts, lists and the loop variable.
#include <unicode/uchar.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/python_format.h"
#include "model/chat/text.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using StringMethod = Result (*)(Runtime& runtime, const std::string& text,
                                const CallArguments& arguments);

Result PartsAsList(Runtime& runtime, const std::vector<std::string_view>& parts) {
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(parts.size()));
  std::vector<Value> items;
  for (const std::string_view part : parts) items.emplace_back(part);
  return MakeList(std::move(items));
}

template <std::string (*kMap)(std::string_view)>
Result MapText(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_RETURN_IF_ERROR(BoundArguments::Bind("method", arguments, {}, 0).status());
  return Value(kMap(text));
}

template <bool kLeft, bool kRight>
Result Strip(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("strip", arguments, {"chars"}, 0));
  std::string_view result = text;
  if (bound[0] == nullptr || bound[0]->is_none()) {
    if (kLeft) result = StripLeft(result);
    if (kRight) result = StripRight(result);
    return Value(result);
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string characters, bound.Text(0, ""));
  if (kLeft) result = StripLeft(result, characters);
  if (kRight) result = StripRight(result, characters);
  return Value(result);
}

template <bool kFromRight>
Result SplitMethod(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("split", arguments, {"sep", "maxsplit"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t limit, bound.Int(1, -1));
  if (bound[0] == nullptr || bound[0]->is_none()) {
    return PartsAsList(runtime,
                       kFromRight ? SplitSpacesRight(text, limit) : SplitSpaces(text, limit));
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string separator, bound.Text(0, ""));
  if (separator.empty()) return absl::InvalidArgumentError("empty separator");
  return PartsAsList(
      runtime, kFromRight ? SplitRight(text, separator, limit) : Split(text, separator, limit));
}

Result SplitLinesMethod(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("splitlines", arguments, {"keepends"}, 0));
  return PartsAsList(runtime, SplitLines(text, bound.Truth(0, false)));
}

// partition and rpartition: (before, separator, after).
template <bool kFromRight>
Result Partition(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("partition", arguments, {"sep"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::string separator, bound.Text(0, ""));
  if (separator.empty()) return absl::InvalidArgumentError("empty separator");
  const size_t at = kFromRight ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return MakeList(kFromRight ? std::vector<Value>{Value(""), Value(""), Value(text)}
                               : std::vector<Value>{Value(text), Value(""), Value("")},
                    ListKind::kTuple);
  }
  return MakeList(
      {Value(text.substr(0, at)), Value(separator), Value(text.substr(at + separator.size()))},
      ListKind::kTuple);
}

// startswith and endswith take a string or a tuple of strings.
template <bool kStart>
Result HasAffix(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(kStart ? "startswith" : "endswith",
                                                                arguments, {"affix"}, 1));
  std::vector<Value> options = {*bound[0]};
  const List* list = bound[0]->as_list();
  if (list != nullptr && list->kind == ListKind::kTuple) options = list->items;
  for (const Value& option : options) {
    if (option.is_undefined()) return UndefinedError(option);
    const std::string* affix = option.as_text();
    if (affix == nullptr) {
      return TypeError(absl::StrFormat("%s first arg must be str or a tuple of str, not %s",
                                       kStart ? "startswith" : "endswith", TypeName(option)));
    }
    if (kStart ? text.starts_with(*affix) : text.ends_with(*affix)) return Value(true);
  }
  return Value(false);
}

template <bool kPrefix>
Result RemoveAffix(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("removeprefix", arguments, {"x"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::string affix, bound.Text(0, ""));
  const size_t size = text.size() - std::min(affix.size(), text.size());
  if (kPrefix) return Value(text.starts_with(affix) ? text.substr(affix.size()) : text);
  return Value(text.ends_with(affix) ? text.substr(0, size) : text);
}

Result ReplaceMethod(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  ESSOR_ASSIGN_OR_RETURN(const std::string from, bound.Text(0, ""));
  ESSOR_ASSIGN_OR_RETURN(const std::string to, bound.Text(1, ""));
  ESSOR_ASSIGN_OR_RETURN(const int64_t limit, bound.Int(2, -1));
  // An upper bound of what comes out.
  const uint64_t matches = text.size() / std::max<size_t>(from.size(), 1) + 1;
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  if (limit != 0 && text.find(from) != std::string::npos) {
    const uint64_t replaced = limit < 0 ? matches : std::min(matches, static_cast<uint64_t>(limit));
    if (to.size() > from.size()) ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(replaced * to.size()));
  }
  return Value(Replace(text, from, to, limit));
}

Result JoinMethod(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("join", arguments, {"iterable"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Iterate(*bound[0]));
  std::string result;
  for (size_t i = 0; i < items->items.size(); ++i) {
    const std::string* item = items->items[i].as_text();
    if (item == nullptr) {
      return TypeError(absl::StrFormat("sequence item %d: expected str instance, %s found", i,
                                       TypeName(items->items[i])));
    }
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(item->size() + text.size()));
    if (i > 0) result.append(text);
    result.append(*item);
  }
  return Value(std::move(result));
}

// find, rfind, index and rindex without range arguments; positions count code points.
template <bool kFromRight, bool kMustExist>
Result FindMethod(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("find", arguments, {"sub"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::string part, bound.Text(0, ""));
  const size_t at = kFromRight ? text.rfind(part) : text.find(part);
  if (at != std::string::npos) {
    return Value(static_cast<int64_t>(CountCodePoints(std::string_view(text).substr(0, at))));
  }
  if (kMustExist) return absl::InvalidArgumentError("substring not found");
  return Value(-1);
}

Result CountMethod(Runtime&, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("count", arguments, {"sub"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const std::string part, bound.Text(0, ""));
  if (part.empty()) return Value(static_cast<int64_t>(CountCodePoints(text)) + 1);
  return Value(static_cast<int64_t>(Split(text, part, -1).size()) - 1);
}

// Whether all characters (and at least one) are in the general categories.
template <uint32_t kCategories>
Result AllInCategories(Runtime&, const std::string& text, const CallArguments&) {
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text.data() + i);
    if ((U_GET_GC_MASK(static_cast<UChar32>(c.value)) & kCategories) == 0) return Value(false);
    i += c.size;
  }
  return Value(!text.empty());
}

Result AllSpace(Runtime&, const std::string& text, const CallArguments&) {
  return Value(!text.empty() && StripLeft(text).empty());
}

template <std::string (*kMap)(std::string_view), std::string (*kOther)(std::string_view)>
Result HasCase(Runtime&, const std::string& text, const CallArguments&) {
  return Value(kMap(text) == text && kOther(text) != text);
}

// ljust, rjust and center: where the padding goes.
enum class Side { kLeft, kRight, kBoth };
template <Side kPadding>
Result Pad(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("just", arguments, {"width", "fillchar"}, 1));
  ESSOR_ASSIGN_OR_RETURN(const int64_t width, bound.Int(0, 0));
  ESSOR_ASSIGN_OR_RETURN(const std::string fill, bound.Text(1, " "));
  if (CountCodePoints(fill) != 1) return TypeError("the fill character must be one character long");
  const auto size = static_cast<int64_t>(CountCodePoints(text));
  if (width <= size) return Value(text);
  const auto missing = static_cast<uint64_t>(width - size);
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(missing < UINT64_MAX / 4 ? missing * 4 : missing));
  // Python centres an odd rest to the left in an even width.
  uint64_t left = kPadding == Side::kLeft ? missing : 0;
  if (kPadding == Side::kBoth) left = missing / 2 + (missing & static_cast<uint64_t>(width) & 1);
  std::string result;
  for (uint64_t i = 0; i < left; ++i) result.append(fill);
  result.append(text);
  for (uint64_t i = left; i < missing; ++i) result.append(fill);
  return Value(std::move(result));
}

Result ZeroFill(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("zfill", arguments, {"width"}, 1));
  const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  ESSOR_ASSIGN_OR_RETURN(const int64_t width, bound.Int(0, 0));
  const Value padded_width(width - (sign ? 1 : 0));
  ESSOR_ASSIGN_OR_RETURN(
      const Value digits,
      Pad<Side::kLeft>(runtime, text.substr(sign ? 1 : 0),
                       {.positional = {padded_width, Value("0")}, .keyword = {}}));
  return Value((sign ? text.substr(0, 1) : "") + *digits.as_text());
}

Result FormatMethod(Runtime& runtime, const std::string& text, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(std::string result, FormatBraces(runtime, text, arguments));
  return Value(std::move(result));
}

const absl::flat_hash_map<std::string, StringMethod>& StringMethods() {
  constexpr uint32_t kAlphaNumeric = U_GC_L_MASK | U_GC_N_MASK;
  static const auto* const methods = new absl::flat_hash_map<std::string, StringMethod>{
      {"capitalize", MapText<Capitalize>},
      {"center", Pad<Side::kBoth>},
      {"count", CountMethod},
      {"endswith", HasAffix<false>},
      {"find", FindMethod<false, false>},
      {"format", FormatMethod},
      {"index", FindMethod<false, true>},
      {"isalnum", AllInCategories<kAlphaNumeric>},
      {"isalpha", AllInCategories<U_GC_L_MASK>},
      {"isdecimal", AllInCategories<U_GC_ND_MASK>},
      {"isdigit", AllInCategories<U_GC_ND_MASK>},
      {"islower", HasCase<Lower, Upper>},
      {"isnumeric", AllInCategories<U_GC_N_MASK>},
      {"isspace", AllSpace},
      {"isupper", HasCase<Upper, Lower>},
      {"join", JoinMethod},
      {"ljust", Pad<Side::kRight>},
      {"lower", MapText<Lower>},
      {"lstrip", Strip<true, false>},
      {"partition", Partition<false>},
      {"removeprefix", RemoveAffix<true>},
      {"removesuffix", RemoveAffix<false>},
      {"replace", ReplaceMethod},
      {"rfind", FindMethod<true, false>},
      {"rindex", FindMethod<true, true>},
      {"rjust", Pad<Side::kLeft>},
      {"rpartition", Partition<true>},
      {"rsplit", SplitMethod<true>},
      {"rstrip", Strip<false, true>},
      {"split", SplitMethod<false>},
      {"splitlines", SplitLinesMethod},
      {"startswith", HasAffix<true>},
      {"strip", Strip<true, true>},
      {"title", MapText<Title>},
      {"upper", MapText<Upper>},
      {"zfill", ZeroFill},
  };
  return *methods;
}

Result CallDictMethod(Runtime& runtime, const Value& receiver, const std::string& name,
                      const CallArguments& arguments) {
  const Dict& dict = *receiver.as_dict();
  if (name == "get") {
    ESSOR_ASSIGN_OR_RETURN(const auto bound,
                           BoundArguments::Bind("get", arguments, {"key", "default"}, 1));
    const Value* item = dict.Find(*bound[0]);
    return item != nullptr ? *item : (bound[1] == nullptr ? Value() : *bound[1]);
  }
  ESSOR_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(dict.size()));
  if (name == "copy") return receiver;
  if (name == "items") return DictItems(dict, ListKind::kItems);
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries()) items.push_back(name == "keys" ? key : value);
  return MakeList(std::move(items), name == "keys" ? ListKind::kKeys : ListKind::kValues);
}

Result CallListMethod(Runtime& runtime, const Value& receiver, const std::string& name,
                      const CallArguments& arguments) {
  if (name == "copy") return receiver;
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"value"}, 1));
  const std::vector<Value>& items = receiver.as_list()->items;
  ESSOR_RETURN_IF_ERROR(runtime.ChargeSteps(items.size()));
  if (bound[0]->as_list() || bound[0]->as_dict()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(receiver));
  }
  const auto matches = [&](const Value& item) { return Equal(item, *bound[0]); };
  if (name == "count") {
    return Value(static_cast<int64_t>(std::count_if(items.begin(), items.end(), matches)));
  }
  const auto it = std::find_if(items.begin(), items.end(), matches);
  if (it == items.end()) return absl::InvalidArgumentError("value is not in list");
  return Value(static_cast<int64_t>(it - items.begin()));
}

Result CallLoopMethod(Runtime& runtime, Loop& loop, const std::string& name,
                      const CallArguments& arguments) {
  if (!arguments.keyword.empty()) return TypeError("loop methods take no keyword arguments");
  if (name == "cycle") {
    if (arguments.positional.empty()) return TypeError("no items for cycling given");
    return arguments.positional[loop.index % arguments.positional.size()];
  }
  // changed(): by what the values look like, since keeping them could tie the loop to itself.
  ESSOR_ASSIGN_OR_RETURN(const Value values, MakeList(arguments.positional, ListKind::kTuple));
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(values));
  std::string text = ToRepr(values);
  const bool changed = !loop.has_last_changed || loop.last_changed != text;
  loop.has_last_changed = true;
  loop.last_changed = std::move(text);
  return Value(changed);
}

}  // namespace

bool HasMethod(const Value& receiver, std::string_view name) {
  if (receiver.is_string()) return StringMethods().contains(std::string(name));
  if (receiver.as_dict()) {
    return name == "get" || name == "items" || name == "keys" || name == "values" || name == "copy";
  }
  if (receiver.as_loop()) return name == "cycle" || name == "changed";
  const List* list = receiver.as_list();
  if (list == nullptr || list->kind > ListKind::kTuple) return false;
  return name == "index" || name == "count" || (name == "copy" && list->kind == ListKind::kList);
}

absl::StatusOr<Value> CallMethod(Runtime& runtime, const Value& receiver, const std::string& name,
                                 const CallArguments& arguments) {
  if (const std::string* text = receiver.as_text()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size()));
    return StringMethods().at(name)(runtime, *text, arguments);
  }
  if (receiver.as_dict()) return CallDictMethod(runtime, receiver, name, arguments);
  if (receiver.as_list()) return CallListMethod(runtime, receiver, name, arguments);
  return CallLoopMethod(runtime, *receiver.as_loop(), name, arguments);
}

}  // namespace essor::model::jinja
