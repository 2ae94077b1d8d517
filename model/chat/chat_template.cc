#include "model/chat/chat_template.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/interpreter.h"
#include "model/chat/json_value.h"
#include "model/chat/parser.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Value;

// Long conversations cost more than short ones, but no input makes rendering endless: some steps
// and some text per byte of input, on top of what any template may take.
constexpr int64_t kStepsBase = 20'000'000;
constexpr int64_t kStepsPerByte = 8;
constexpr int64_t kBytesBase = int64_t{256} << 20;
constexpr int64_t kBytesPerByte = 64;

// transformers gives templates a message's reasoning as `reasoning_content` and as `thinking`,
// whichever of these (or `reasoning`) the caller used.
absl::StatusOr<Value> AliasReasoning(const Value& message) {
  const Dict& dict = *message.as_dict();
  const Value* reasoning = nullptr;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const Value* value = dict.FindText(name);
    if (value == nullptr || value->is_none()) continue;
    reasoning = value;
    break;
  }
  if (reasoning == nullptr) return message;
  auto aliased = std::make_shared<Dict>();
  ESSOR_RETURN_IF_ERROR(aliased->Set(Value("thinking"), *reasoning));
  for (const auto& [key, value] : dict.entries()) {
    ESSOR_RETURN_IF_ERROR(aliased->Set(key, value));
  }
  ESSOR_RETURN_IF_ERROR(aliased->Set(Value("reasoning_content"), *reasoning));
  return Value(std::shared_ptr<const Dict>(std::move(aliased)));
}

absl::StatusOr<Value> ReadMessages(const std::string& json) {
  ESSOR_ASSIGN_OR_RETURN(const Value messages, jinja::ParseJson(json, "messages"));
  const List* list = messages.as_list();
  if (list == nullptr) return absl::InvalidArgumentError("messages: not an array");
  std::vector<Value> result;
  for (size_t i = 0; i < list->items.size(); ++i) {
    const Dict* message = list->items[i].as_dict();
    if (message == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat("messages[%d]: not an object", i));
    }
    const Value* role = message->FindText("role");
    if (role == nullptr || !role->is_string()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("messages[%d].role: missing or not a string", i));
    }
    ESSOR_ASSIGN_OR_RETURN(Value aliased, AliasReasoning(list->items[i]));
    result.push_back(std::move(aliased));
  }
  return jinja::MakeList(std::move(result));
}

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(std::unique_ptr<jinja::Template> source, Tokens tokens)
      : source_(std::move(source)), tokens_(std::move(tokens)) {}

  absl::StatusOr<std::string> Render(const ChatInput& input) const override {
    const auto input_bytes = static_cast<int64_t>(
        input.messages_json.size() + input.tools_json.size() + input.kwargs_json.size());
    jinja::Interpreter interpreter(
        *source_, {.runtime = {.now = input.now,
                               .steps_max = kStepsBase + kStepsPerByte * input_bytes,
                               .bytes_max = kBytesBase + kBytesPerByte * input_bytes},
                   .output_bytes_max = kRenderedBytesMax,
                   .depth_max = kRenderDepthMax});
    ESSOR_ASSIGN_OR_RETURN(Value messages, ReadMessages(input.messages_json));
    Value tools;
    if (!input.tools_json.empty()) {
      ESSOR_ASSIGN_OR_RETURN(tools, jinja::ParseJson(input.tools_json, "tools"));
      if (tools.as_list() == nullptr) return absl::InvalidArgumentError("tools: not an array");
    }
    const std::pair<const char*, const std::string*> tokens[] = {{"bos_token", &tokens_.bos_token},
                                                                 {"eos_token", &tokens_.eos_token},
                                                                 {"pad_token", &tokens_.pad_token},
                                                                 {"unk_token", &tokens_.unk_token}};
    for (const auto& [name, text] : tokens) {
      if (!text->empty()) interpreter.SetGlobal(name, Value(*text));
    }
    interpreter.SetGlobal("add_generation_prompt", Value(input.add_generation_prompt));
    interpreter.SetGlobal("documents", Value());
    ESSOR_RETURN_IF_ERROR(SetKwargs(input.kwargs_json, &interpreter));
    interpreter.SetGlobal("messages", std::move(messages));
    interpreter.SetGlobal("tools", std::move(tools));
    return interpreter.Run();
  }

 private:
  static absl::Status SetKwargs(const std::string& json, jinja::Interpreter* interpreter) {
    if (json.empty()) return absl::OkStatus();
    ESSOR_ASSIGN_OR_RETURN(const Value kwargs, jinja::ParseJson(json, "chat_template_kwargs"));
    const Dict* dict = kwargs.as_dict();
    if (dict == nullptr) {
      return absl::InvalidArgumentError("chat_template_kwargs: not an object");
    }
    for (const auto& [key, value] : dict->entries()) {
      const std::string& name = *key.as_text();
      if (name == "messages" || name == "tools") {
        return absl::InvalidArgumentError(
            absl::StrFormat("chat_template_kwargs.%s: given elsewhere", name));
      }
      interpreter->SetGlobal(name, value);
    }
    return absl::OkStatus();
  }

  std::unique_ptr<jinja::Template> source_;
  Tokens tokens_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                  Tokens tokens) {
  if (source.size() > kTemplateBytesMax) {
    return absl::InvalidArgumentError(absl::StrFormat("chat template of %d bytes; the limit is %d",
                                                      source.size(), kTemplateBytesMax));
  }
  if (!IsValidUtf8(source)) {
    return absl::InvalidArgumentError("chat template is not valid UTF-8");
  }
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<jinja::Template> parsed, jinja::ParseTemplate(source));
  return std::unique_ptr<ChatTemplate>(
      std::make_unique<JinjaChatTemplate>(std::move(parsed), std::move(tokens)));
}

}  // namespace essor::model
