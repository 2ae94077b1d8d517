#include "model/chat/python_format.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/guards.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

// str.isprintable() of one character.
bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  constexpr uint32_t kHidden = U_GC_C_MASK | U_GC_Z_MASK;  // other, separators
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & kHidden) == 0;
}

void AppendRepr(std::string_view text, std::string* out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out->push_back(quote);
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text.data() + i);
    if (c.value == static_cast<char32_t>(quote) || c.value == '\\') {
      out->push_back('\\');
      out->push_back(text[i]);
    } else if (c.value == '\n') {
      out->append("\\n");
    } else if (c.value == '\r') {
      out->append("\\r");
    } else if (c.value == '\t') {
      out->append("\\t");
    } else if (IsPrintable(c.value)) {
      out->append(text.substr(i, c.size));
    } else if (c.value < 0x100) {
      absl::StrAppendFormat(out, "\\x%02x", static_cast<uint32_t>(c.value));
    } else if (c.value < 0x10000) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c.value));
    } else {
      absl::StrAppendFormat(out, "\\U%08x", static_cast<uint32_t>(c.value));
    }
    i += c.size;
  }
  out->push_back(quote);
}

void AppendValueRepr(const Value& value, int depth, std::string* out);

void AppendListRepr(const List& list, int depth, std::string* out) {
  if (list.kind == ListKind::kGenerator) {
    out->append("<generator object>");
    return;
  }
  const char* open = "[";
  const char* close = "]";
  switch (list.kind) {
    case ListKind::kTuple:
      open = "(";
      close = list.items.size() == 1 ? ",)" : ")";
      break;
    case ListKind::kKeys:
      open = "dict_keys([";
      close = "])";
      break;
    case ListKind::kValues:
      open = "dict_values([";
      close = "])";
      break;
    case ListKind::kItems:
      open = "dict_items([";
      close = "])";
      break;
    case ListKind::kList:
    case ListKind::kGenerator:
      break;
  }
  out->append(open);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out->append(", ");
    AppendValueRepr(list.items[i], depth + 1, out);
  }
  out->append(close);
}

void AppendDictRepr(const Dict& dict, int depth, std::string* out) {
  out->push_back('{');
  bool first = true;
  for (const auto& [key, item] : dict.entries()) {
    if (!first) out->append(", ");
    first = false;
    AppendValueRepr(key, depth + 1, out);
    out->append(": ");
    AppendValueRepr(item, depth + 1, out);
  }
  out->push_back('}');
}

void AppendValueRepr(const Value& value, int depth, std::string* out) {
  if (value.is_undefined()) {
    out->append("Undefined");
  } else if (value.is_none()) {
    out->append("None");
  } else if (value.is_bool()) {
    out->append(*value.as_bool() ? "True" : "False");
  } else if (value.is_int()) {
    absl::StrAppend(out, *value.as_int());
  } else if (value.is_float()) {
    out->append(FormatFloat(*value.as_float()));
  } else if (const BigInt* big = value.as_big_int()) {
    out->append(big->digits);
  } else if (const String* string = value.as_string()) {
    if (string->markup) out->append("Markup(");
    AppendRepr(string->text, out);
    if (string->markup) out->push_back(')');
  } else if (const List* list = value.as_list()) {
    AppendListRepr(*list, depth, out);
  } else if (const Dict* dict = value.as_dict()) {
    AppendDictRepr(*dict, depth, out);
  } else if (const Namespace* space = value.as_namespace()) {
    // A namespace may hold itself, so only the outermost is written out.
    out->append("<Namespace ");
    if (depth == 0) {
      AppendDictRepr(space->fields, 1, out);
    } else {
      out->append("{...}");
    }
    out->push_back('>');
  } else if (const Loop* loop = value.as_loop()) {
    absl::StrAppend(out, "<LoopContext ", loop->index + 1, "/", loop->items->items.size(), ">");
  } else {
    const Callable& callable = *value.as_callable();
    const bool macro = callable.kind == Callable::Kind::kMacro;
    absl::StrAppend(out, macro ? "<Macro '" : "<function ", callable.name, macro ? "'>" : ">");
  }
}

void AppendJsonString(std::string_view text, bool ensure_ascii, std::string* out) {
  out->push_back('"');
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text.data() + i);
    constexpr std::string_view kShort = "\"\\\n\r\t\f\b";
    constexpr std::string_view kShortNames = "\"\\nrtfb";
    const size_t known = c.value < 0x80 ? kShort.find(text[i]) : std::string_view::npos;
    if (known != std::string_view::npos) {
      out->push_back('\\');
      out->push_back(kShortNames[known]);
    } else if (c.value < 0x20) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c.value));
    } else if (!ensure_ascii || c.value < 0x7f || c.value == kGuard || c.value == kGuardEscape) {
      out->append(text.substr(i, c.size));
    } else if (c.value < 0x10000) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c.value));
    } else {
      const auto offset = static_cast<uint32_t>(c.value) - 0x10000;
      absl::StrAppendFormat(out, "\\u%04x\\u%04x", 0xd800 + (offset >> 10),
                            0xdc00 + (offset & 0x3ff));
    }
    i += c.size;
  }
  out->push_back('"');
}

std::string JsonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return FormatFloat(value);
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonOptions& options) : options_(options) {}

  absl::Status Write(const Value& value, int level) {
    if (value.is_none()) {
      out_.append("null");
    } else if (value.is_bool()) {
      out_.append(*value.as_bool() ? "true" : "false");
    } else if (value.is_int() || value.as_big_int()) {
      out_.append(ToText(value));
    } else if (value.is_float()) {
      out_.append(JsonFloat(*value.as_float()));
    } else if (const std::string* text = value.as_text()) {
      AppendJsonString(*text, options_.ensure_ascii, &out_);
    } else if (const Dict* dict = value.as_dict()) {
      return WriteDict(*dict, level);
    } else if (const List* list = value.as_list(); list && list->kind <= ListKind::kTuple) {
      return WriteList(*list, level);
    } else {
      return TypeError(
          absl::StrFormat("Object of type %s is not JSON serializable", TypeName(value)));
    }
    return absl::OkStatus();
  }

  std::string Take() { return std::move(out_); }

 private:
  void Break(int level) {
    if (!options_.indent.has_value()) return;
    out_.push_back('\n');
    for (int i = 0; i < level; ++i) out_.append(*options_.indent);
  }

  absl::Status WriteList(const List& list, int level) {
    if (list.items.empty()) {
      out_.append("[]");
      return absl::OkStatus();
    }
    out_.push_back('[');
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.append(options_.item_separator);
      Break(level + 1);
      ESSOR_RETURN_IF_ERROR(Write(list.items[i], level + 1));
    }
    Break(level);
    out_.push_back(']');
    return absl::OkStatus();
  }

  // JSON keys are strings; json.dumps turns the other scalars into text.
  static absl::StatusOr<std::string> KeyText(const Value& key) {
    if (const std::string* text = key.as_text()) return *text;
    if (key.is_none()) return std::string("null");
    if (key.is_bool()) return std::string(*key.as_bool() ? "true" : "false");
    if (key.is_float()) return JsonFloat(*key.as_float());
    if (key.is_int() || key.as_big_int()) return ToText(key);
    return TypeError(
        absl::StrFormat("keys must be str, int, float, bool or None, not %s", TypeName(key)));
  }

  absl::Status WriteDict(const Dict& dict, int level) {
    if (dict.size() == 0) {
      out_.append("{}");
      return absl::OkStatus();
    }
    std::vector<std::pair<Value, Value>> entries = dict.entries();
    if (options_.sort_keys) {
      absl::Status error;
      std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
        const absl::StatusOr<int> order = Compare(a.first, b.first, "<");
        if (!order.ok()) error = order.status();
        return order.ok() && *order < 0;
      });
      ESSOR_RETURN_IF_ERROR(error);
    }
    out_.push_back('{');
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.append(options_.item_separator);
      Break(level + 1);
      ESSOR_ASSIGN_OR_RETURN(const std::string key, KeyText(entries[i].first));
      AppendJsonString(key, options_.ensure_ascii, &out_);
      out_.append(options_.key_separator);
      ESSOR_RETURN_IF_ERROR(Write(entries[i].second, level + 1));
    }
    Break(level);
    out_.push_back('}');
    return absl::OkStatus();
  }

  const JsonOptions& options_;
  std::string out_;
};

}  // namespace

std::string FormatFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Shortest digits as d.ddde+xx; Python writes an exponent below 1e-4 and from 1e16 on.
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view scientific(buffer, static_cast<size_t>(end - buffer));
  const size_t e = scientific.find('e');
  int exponent = 0;
  const size_t digits_at = e + (scientific[e + 1] == '+' ? 2 : 1);
  std::from_chars(scientific.data() + digits_at, end, exponent);
  if (exponent < -4 || exponent >= 16) {
    // from_chars reads "-05" as -5; Python keeps two digits at least.
    return absl::StrFormat(
        "%s%s", std::string(scientific.substr(0, e)),
        absl::StrFormat("e%c%02d", exponent < 0 ? '-' : '+', exponent < 0 ? -exponent : exponent));
  }
  const auto fixed_end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed).ptr;
  std::string result(buffer, static_cast<size_t>(fixed_end - buffer));
  if (result.find('.') == std::string::npos) result.append(".0");
  return result;
}

std::string ToText(const Value& value) {
  if (const std::string* text = value.as_text()) return *text;
  if (value.is_undefined()) return {};
  return ToRepr(value);
}

std::string ToRepr(const Value& value) {
  std::string out;
  AppendValueRepr(value, 0, &out);
  return out;
}

absl::StatusOr<std::string> ToJson(const Value& value, const JsonOptions& options) {
  JsonWriter writer(options);
  ESSOR_RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace essor::model::jinja
