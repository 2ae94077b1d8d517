// essor render: chats to prompts, as transformers' apply_chat_template renders them.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/command.h"
#include "client/cli/json_input.h"
#include "client/cli/json_output.h"
#include "client/cli/text_model.h"
#include "common/status_macros.h"
#include "model/source/model_source.h"

namespace essor::cli {
namespace {

using simdjson::dom::element;

// The JSON text of a field; nullopt when it is not there or null.
std::optional<std::string> Field(element object, const char* key) {
  element value;
  if (object[key].get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return simdjson::minify(value);
}

absl::StatusOr<model::ChatInput> ToChatInput(element item) {
  if (!item.is_object()) return absl::InvalidArgumentError("not an object");
  std::optional<std::string> messages = Field(item, "messages");
  if (!messages.has_value()) return absl::InvalidArgumentError("messages: missing");
  model::ChatInput input;
  input.add_generation_prompt = false;  // apply_chat_template's default
  input.messages_json = *std::move(messages);
  input.tools_json = Field(item, "tools").value_or("");
  input.kwargs_json = Field(item, "chat_template_kwargs").value_or("");
  if (const auto prompt = Field(item, "add_generation_prompt")) {
    if (item["add_generation_prompt"].get(input.add_generation_prompt) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError("add_generation_prompt: not true or false");
    }
  }
  input.now = absl::Now();
  return input;
}

absl::StatusOr<std::string> Render(const model::ChatTemplate& chat_template, element item) {
  ESSOR_ASSIGN_OR_RETURN(const model::ChatInput input, ToChatInput(item));
  return chat_template.Render(input);
}

class RenderCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override { AddTextModelFlag(app, model_); }

  absl::Status CheckUsage() const override { return CheckTextModel(model_); }

  absl::Status Run(const CommandContext&) override {
    ESSOR_ASSIGN_OR_RETURN(const model::TextFiles files, model::OpenTextFiles(model_));
    if (files.chat_template == nullptr) {
      return absl::NotFoundError(absl::StrFormat("%s has no chat template", model_));
    }
    ESSOR_ASSIGN_OR_RETURN(const std::string json, ReadStdin());
    JsonOutput output;
    output.StartArray();
    ESSOR_RETURN_IF_ERROR(ForEachElement(json, "stdin", [&](size_t, element item) {
      const auto text = Render(*files.chat_template, item);
      output.StartObject();
      if (text.ok()) {
        output.Field("text", std::string_view(*text));
      } else {
        output.Field("error", std::string_view(std::string(text.status().message())));
      }
      output.EndObject();
      return absl::OkStatus();
    }));
    output.EndArray();
    output.Print();
    return absl::OkStatus();
  }

 private:
  std::string model_;
};

}  // namespace

std::unique_ptr<Command> MakeRenderCommand() { return std::make_unique<RenderCommand>(); }

}  // namespace essor::cli
