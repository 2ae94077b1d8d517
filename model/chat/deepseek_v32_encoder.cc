#include "model/chat/deepseek_v32_encoder.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "model/chat/guard_special_tokens.h"
#include "model/chat/json_value.h"
#include "model/chat/python_format.h"
#include "model/chat/value.h"
#include "model/tokenizer/guards.h"

namespace essor::model {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Value;

constexpr char kBos[] = "<｜begin▁of▁sentence｜>";
constexpr char kEos[] = "<｜end▁of▁sentence｜>";
constexpr char kUserMark[] = "<｜User｜>";
constexpr char kAssistantMark[] = "<｜Assistant｜>";
constexpr char kThinkOpen[] = "<think>";
constexpr char kThinkClose[] = "</think>";

// What the model was trained to see before its functions; $SCHEMAS stands for them.
constexpr char kToolsText[] =
    R"(## Tools
You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>
String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).
If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:
<｜DSML｜function_calls>
...
</｜DSML｜function_calls>
<function_results>
...
</function_results>
<think>...thinking about results</think>
Here are the functions available in JSONSchema format:
<functions>
$SCHEMAS
</functions>
)";
constexpr char kResponseFormatText[] =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";
constexpr char kDeveloperText[] = "\n\n# The user's message is: ";

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };

struct Message {
  Role role = Role::kUser;
  std::string content;
  std::string reasoning;
  Value tools;  // none or a list
  Value response_format;
  std::vector<std::pair<std::string, Value>> calls;  // names and arguments
};

// Null where there is no such member, or it is null.
const Value* Member(const Dict& dict, std::string_view key) {
  const Value* value = dict.FindText(key);
  return value == nullptr || value->is_none() ? nullptr : value;
}

absl::StatusOr<Role> RoleNamed(const std::string& name) {
  constexpr std::pair<std::string_view, Role> kRoles[] = {{"system", Role::kSystem},
                                                          {"developer", Role::kDeveloper},
                                                          {"user", Role::kUser},
                                                          {"assistant", Role::kAssistant},
                                                          {"tool", Role::kTool}};
  for (const auto& [text, role] : kRoles) {
    if (text == name) return role;
  }
  return absl::InvalidArgumentError(absl::StrCat("role '", name,
                                                 "'; known are system, developer, user, assistant "
                                                 "and tool"));
}

absl::StatusOr<std::string> TextOf(const Value& content) {
  if (const std::string* text = content.as_text()) return *text;
  const List* parts = content.as_list();
  if (parts == nullptr) return absl::InvalidArgumentError("content: neither text nor parts");
  std::string result;
  for (size_t i = 0; i < parts->items.size(); ++i) {
    const Dict* part = parts->items[i].as_dict();
    const Value* text = part == nullptr ? nullptr : Member(*part, "text");
    if (text == nullptr || !text->is_string()) {
      return absl::InvalidArgumentError(absl::StrFormat("content[%d]: not text", i));
    }
    absl::StrAppend(&result, i == 0 ? "" : "\n", *text->as_text());
  }
  return result;
}

// The object that the text `json` of a message is. Where the messages are guarded, its strings are
// guarded as they come out of it: a token in them may have been written with escapes.
absl::StatusOr<Value> ParseArguments(const std::string& json, SpecialTokenGuard* guard) {
  constexpr char kWhat[] = "function.arguments";
  if (guard == nullptr) return jinja::ParseJson(json, kWhat);
  return jinja::ParseJson(guard->GuardStrings(RemoveGuards(json).text), kWhat);
}

absl::StatusOr<std::pair<std::string, Value>> ReadCall(const Value& call,
                                                       SpecialTokenGuard* guard) {
  const Dict* dict = call.as_dict();
  const Value* function = dict == nullptr ? nullptr : Member(*dict, "function");
  const Dict* fields = function == nullptr ? nullptr : function->as_dict();
  if (fields == nullptr) return absl::InvalidArgumentError("no function");
  const Value* name = Member(*fields, "name");
  if (name == nullptr || !name->is_string()) {
    return absl::InvalidArgumentError("function.name: missing or not a string");
  }
  const Value* arguments = Member(*fields, "arguments");
  if (arguments == nullptr) return absl::InvalidArgumentError("function.arguments: missing");
  Value value = *arguments;
  if (const std::string* json = value.as_text()) {
    ESSOR_ASSIGN_OR_RETURN(value, ParseArguments(*json, guard));
  }
  if (value.as_dict() == nullptr) {
    return absl::InvalidArgumentError("function.arguments: not an object");
  }
  return std::pair(*name->as_text(), std::move(value));
}

absl::Status ReadCalls(const Value& calls, SpecialTokenGuard* guard, Message* message) {
  const List* list = calls.as_list();
  if (list == nullptr) return absl::InvalidArgumentError("tool_calls: not an array");
  for (size_t i = 0; i < list->items.size(); ++i) {
    auto call = ReadCall(list->items[i], guard);
    if (!call.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tool_calls[%d]: %s", i, call.status().message()));
    }
    message->calls.push_back(*std::move(call));
  }
  return absl::OkStatus();
}

absl::StatusOr<Message> ReadMessage(const Value& value, SpecialTokenGuard* guard) {
  const Dict* dict = value.as_dict();
  if (dict == nullptr) return absl::InvalidArgumentError("not an object");
  const Value* role = Member(*dict, "role");
  if (role == nullptr || !role->is_string()) {
    return absl::InvalidArgumentError("role: missing or not a string");
  }
  Message message;
  ESSOR_ASSIGN_OR_RETURN(message.role, RoleNamed(*role->as_text()));
  if (const Value* content = Member(*dict, "content")) {
    ESSOR_ASSIGN_OR_RETURN(message.content, TextOf(*content));
  } else if (message.role == Role::kUser || message.role == Role::kTool) {
    return absl::InvalidArgumentError("content: missing");
  }
  if (message.role == Role::kDeveloper && message.content.empty()) {
    return absl::InvalidArgumentError("content: a developer message must not be empty");
  }
  for (const char* key : {"reasoning", "reasoning_content"}) {
    const Value* reasoning = Member(*dict, key);
    if (reasoning == nullptr || !message.reasoning.empty()) continue;
    if (!reasoning->is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(key, ": not a string"));
    }
    message.reasoning = *reasoning->as_text();
  }
  if (const Value* tools = Member(*dict, "tools")) message.tools = *tools;
  if (const Value* format = Member(*dict, "response_format")) message.response_format = *format;
  if (const Value* calls = Member(*dict, "tool_calls")) {
    ESSOR_RETURN_IF_ERROR(ReadCalls(*calls, guard, &message));
  }
  return message;
}

absl::StatusOr<std::vector<Message>> ReadMessages(const std::string& json,
                                                  SpecialTokenGuard* guard) {
  ESSOR_ASSIGN_OR_RETURN(const Value messages, jinja::ParseJson(json, "messages"));
  const List* list = messages.as_list();
  if (list == nullptr) return absl::InvalidArgumentError("messages: not an array");
  std::vector<Message> result;
  for (size_t i = 0; i < list->items.size(); ++i) {
    auto message = ReadMessage(list->items[i], guard);
    if (!message.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("messages[%d]: %s", i, message.status().message()));
    }
    result.push_back(*std::move(message));
  }
  return result;
}

absl::StatusOr<std::string> ToolsText(const Value& tools) {
  const List* list = tools.as_list();
  if (list == nullptr) return absl::InvalidArgumentError("tools: not an array");
  std::string schemas;
  for (size_t i = 0; i < list->items.size(); ++i) {
    const Dict* tool = list->items[i].as_dict();
    const Value* function = tool == nullptr ? nullptr : Member(*tool, "function");
    if (function == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat("tools[%d]: no function", i));
    }
    ESSOR_ASSIGN_OR_RETURN(const std::string json, jinja::ToJson(*function, {}));
    absl::StrAppend(&schemas, i == 0 ? "" : "\n", json);
  }
  return absl::StrReplaceAll(kToolsText, {{"$SCHEMAS", schemas}});
}

// What a system or developer message says of tools and of the answer's format.
absl::StatusOr<std::string> Instructions(const Message& message) {
  std::string result;
  if (jinja::IsTrue(message.tools)) {
    ESSOR_ASSIGN_OR_RETURN(const std::string tools, ToolsText(message.tools));
    absl::StrAppend(&result, "\n\n", tools);
  }
  if (jinja::IsTrue(message.response_format)) {
    ESSOR_ASSIGN_OR_RETURN(const std::string schema, jinja::ToJson(message.response_format, {}));
    absl::StrAppend(&result, "\n\n", kResponseFormatText, schema);
  }
  return result;
}

absl::Status AppendCall(const std::string& name, const Dict& arguments, std::string* out) {
  absl::StrAppend(out, "<｜DSML｜invoke name=\"", name, "\">\n");
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& [key, value] = arguments.entries()[i];
    const std::string* text = value.as_text();
    std::string json;
    if (text == nullptr) {
      ESSOR_ASSIGN_OR_RETURN(json, jinja::ToJson(value, {}));
    }
    absl::StrAppend(out, i == 0 ? "" : "\n", "<｜DSML｜parameter name=\"", *key.as_text(),
                    "\" string=\"", text != nullptr ? "true" : "false", "\">",
                    text != nullptr ? *text : json, "</｜DSML｜parameter>");
  }
  out->append("\n</｜DSML｜invoke>\n");
  return absl::OkStatus();
}

// One prompt.
class Writer {
 public:
  Writer(const std::vector<Message>& messages, bool thinking)
      : messages_(messages), thinking_(thinking), prompt_(kBos) {
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role == Role::kUser || messages[i].role == Role::kDeveloper)
        questions_ = i + 1;
    }
  }

  absl::StatusOr<std::string> Write() {
    for (size_t i = 0; i < messages_.size(); ++i) {
      const absl::Status status = Append(i);
      if (!status.ok()) {
        return absl::InvalidArgumentError(absl::StrFormat("messages[%d]: %s", i, status.message()));
      }
      if (prompt_.size() > kRenderedBytesMax) {
        return absl::InvalidArgumentError(
            absl::StrFormat("messages: the prompt has more than %d bytes", kRenderedBytesMax));
      }
    }
    return std::move(prompt_);
  }

 private:
  // Whether message `i` is behind the last question.
  bool IsBehindQuestion(size_t i) const { return i >= questions_; }

  absl::Status Append(size_t i) {
    const Message& message = messages_[i];
    switch (message.role) {
      case Role::kSystem: {
        ESSOR_ASSIGN_OR_RETURN(const std::string instructions, Instructions(message));
        absl::StrAppend(&prompt_, message.content, instructions);
        return absl::OkStatus();
      }
      case Role::kDeveloper: {
        ESSOR_ASSIGN_OR_RETURN(const std::string instructions, Instructions(message));
        AppendQuestion(i, absl::StrCat(instructions, kDeveloperText, message.content));
        return absl::OkStatus();
      }
      case Role::kUser:
        AppendQuestion(i, message.content);
        return absl::OkStatus();
      case Role::kAssistant:
        return AppendAnswer(i);
      case Role::kTool:
        return AppendResult(i);
    }
    return absl::OkStatus();
  }

  void AppendQuestion(size_t i, std::string_view text) {
    const bool thinks = thinking_ && i + 1 == questions_;
    absl::StrAppend(&prompt_, kUserMark, std::string(text), kAssistantMark,
                    thinks ? kThinkOpen : kThinkClose);
  }

  absl::Status AppendAnswer(size_t i) {
    const Message& message = messages_[i];
    if (thinking_ && IsBehindQuestion(i)) {
      if (message.reasoning.empty() && message.calls.empty()) {
        return absl::InvalidArgumentError(
            "thinking: an answer to the last question needs reasoning_content or tool_calls");
      }
      absl::StrAppend(&prompt_, message.reasoning, kThinkClose);
    }
    prompt_.append(message.content);
    if (!message.calls.empty()) {
      prompt_.append("\n\n<｜DSML｜function_calls>\n");
      for (const auto& [name, arguments] : message.calls) {
        ESSOR_RETURN_IF_ERROR(AppendCall(name, *arguments.as_dict(), &prompt_));
      }
      prompt_.append("</｜DSML｜function_calls>");
    }
    prompt_.append(kEos);
    return absl::OkStatus();
  }

  absl::Status AppendResult(size_t i) {
    // Results follow the calls in their order.
    if (i > 0 && messages_[i - 1].role == Role::kAssistant) {
      calls_ = messages_[i - 1].calls.size();
      results_ = 0;
    } else if (i == 0 || messages_[i - 1].role != Role::kTool) {
      calls_ = results_ = 0;
    }
    if (results_ == calls_) {
      return absl::InvalidArgumentError("a tool's result, but the assistant made no call for it");
    }
    if (results_ == 0) prompt_.append("\n\n<function_results>");
    absl::StrAppend(&prompt_, "\n<result>", messages_[i].content, "</result>");
    if (++results_ < calls_) return absl::OkStatus();
    const bool thinks = thinking_ && IsBehindQuestion(i);
    absl::StrAppend(&prompt_, "\n</function_results>\n\n", thinks ? kThinkOpen : kThinkClose);
    return absl::OkStatus();
  }

  const std::vector<Message>& messages_;
  const bool thinking_;
  size_t questions_ = 0;  // messages up to and with the last question
  size_t calls_ = 0;      // of the assistant message that the current results belong to
  size_t results_ = 0;    // seen of them
  std::string prompt_;
};

absl::StatusOr<bool> ReadThinking(const std::string& kwargs_json) {
  if (kwargs_json.empty()) return false;
  ESSOR_ASSIGN_OR_RETURN(const Value kwargs, jinja::ParseJson(kwargs_json, "chat_template_kwargs"));
  const Dict* dict = kwargs.as_dict();
  if (dict == nullptr) return absl::InvalidArgumentError("chat_template_kwargs: not an object");
  if (const Value* mode = Member(*dict, "thinking_mode")) {
    const std::string* name = mode->as_text();
    if (name == nullptr || (*name != "chat" && *name != "thinking")) {
      return absl::InvalidArgumentError(
          "chat_template_kwargs.thinking_mode: neither \"chat\" nor \"thinking\"");
    }
    return *name == "thinking";
  }
  for (const char* key : {"thinking", "enable_thinking"}) {
    const Value* value = Member(*dict, key);
    if (value == nullptr) continue;
    if (value->is_bool()) return *value->as_bool();
    return absl::InvalidArgumentError(
        absl::StrCat("chat_template_kwargs.", key, ": not a boolean"));
  }
  return false;
}

class DeepSeekV32Encoder final : public ChatTemplate {
 public:
  absl::StatusOr<std::string> Render(const ChatInput& input) const override {
    ESSOR_ASSIGN_OR_RETURN(std::vector<Message> messages,
                           ReadMessages(input.messages_json, input.guard));
    ESSOR_ASSIGN_OR_RETURN(const bool thinking, ReadThinking(input.kwargs_json));
    if (!input.tools_json.empty()) {
      ESSOR_ASSIGN_OR_RETURN(Value tools, jinja::ParseJson(input.tools_json, "tools"));
      if (tools.as_list() == nullptr) return absl::InvalidArgumentError("tools: not an array");
      if (jinja::IsTrue(tools)) {
        if (messages.empty() || messages[0].role != Role::kSystem) {
          messages.emplace(messages.begin())->role = Role::kSystem;
        }
        messages[0].tools = std::move(tools);
      }
    }
    return Writer(messages, thinking).Write();
  }
};

}  // namespace

std::unique_ptr<ChatTemplate> MakeDeepSeekV32Encoder() {
  return std::make_unique<DeepSeekV32Encoder>();
}

}  // namespace essor::model
