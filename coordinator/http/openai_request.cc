#include "coordinator/http/openai_request.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "common/status_macros.h"
#include "coordinator/http/json_body.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::coordinator {
namespace {

using simdjson::dom::element;
using JsonWriter = rapidjson::Writer<rapidjson::StringBuffer>;

constexpr size_t kMaxPrompts = 256;
// The default of OpenAI's completions endpoint; chat has none.
constexpr uint32_t kCompletionMaxTokens = 16;

absl::Status NotSupported(const std::string& field) {
  return FieldError(field, "is not supported yet");
}

absl::Status ReadStop(const JsonBody& body, SamplingRequest* sampling) {
  const auto stop = body.Find("stop");
  if (!stop.has_value()) return absl::OkStatus();
  std::string_view text;
  if (stop->get(text) == simdjson::SUCCESS) {
    sampling->stop = {std::string(text)};
    return absl::OkStatus();
  }
  ESSOR_ASSIGN_OR_RETURN(sampling->stop, StringArray(*stop, "stop"));
  return absl::OkStatus();
}

absl::Status ReadSeed(const JsonBody& body, SamplingRequest* sampling) {
  const auto seed = body.Find("seed");
  if (!seed.has_value()) return absl::OkStatus();
  uint64_t number = 0;
  int64_t negative = 0;
  if (seed->get(number) == simdjson::SUCCESS) {
    sampling->seed = number;
  } else if (seed->get(negative) == simdjson::SUCCESS) {
    sampling->seed = static_cast<uint64_t>(negative);
  } else {
    return FieldError("seed", "must be an integer");
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const JsonBody& body, FieldNames* names, SamplingRequest* sampling) {
  ESSOR_ASSIGN_OR_RETURN(sampling->temperature, body.Number("temperature"));
  ESSOR_ASSIGN_OR_RETURN(sampling->top_p, body.Number("top_p"));
  ESSOR_ASSIGN_OR_RETURN(sampling->min_p, body.Number("min_p"));
  ESSOR_ASSIGN_OR_RETURN(sampling->top_k, body.Integer("top_k"));
  if (sampling->top_k == -1) sampling->top_k = 0;  // a common way to say "off"
  ESSOR_ASSIGN_OR_RETURN(sampling->n, body.Integer("n"));
  ESSOR_ASSIGN_OR_RETURN(sampling->max_new_tokens, body.Integer("max_completion_tokens"));
  if (sampling->max_new_tokens.has_value()) {
    names->max_tokens = "max_completion_tokens";
  } else {
    ESSOR_ASSIGN_OR_RETURN(sampling->max_new_tokens, body.Integer("max_tokens"));
  }
  ESSOR_ASSIGN_OR_RETURN(sampling->ignore_eos, body.Bool("ignore_eos", false));
  ESSOR_RETURN_IF_ERROR(ReadSeed(body, sampling));
  ESSOR_RETURN_IF_ERROR(ReadStop(body, sampling));
  if (const auto ids = body.Find("stop_token_ids")) {
    ESSOR_ASSIGN_OR_RETURN(sampling->stop_token_ids, TokenArray(*ids, "stop_token_ids"));
  }
  return absl::OkStatus();
}

// Fields that would change the answer in ways that are not implemented: refused rather than
// ignored, unless they ask for what happens anyway.
absl::Status RefuseUnsupported(const JsonBody& body) {
  for (const char* field : {"presence_penalty", "frequency_penalty"}) {
    ESSOR_ASSIGN_OR_RETURN(const std::optional<double> penalty, body.Number(field));
    if (!penalty.has_value()) continue;
    if (!(*penalty >= -2 && *penalty <= 2)) {
      return FieldError(field, absl::StrCat(*penalty, " is not within -2 and 2"));
    }
    if (*penalty != 0) return NotSupported(field);
  }
  for (const char* field : {"echo", "use_beam_search"}) {
    ESSOR_ASSIGN_OR_RETURN(const bool wanted, body.Bool(field, false));
    if (wanted) return NotSupported(field);
  }
  for (const char* field : {"suffix", "logit_bias", "functions", "tools", "audio"}) {
    const auto value = body.Find(field);
    if (!value.has_value()) continue;
    const bool empty = (value->is_array() && value->get_array().size() == 0) ||
                       (value->is_object() && value->get_object().size() == 0) ||
                       (value->is_string() && value->get_string().value().empty());
    if (!empty) return NotSupported(field);
  }
  if (const auto logprobs = body.Find("logprobs")) {
    bool flag = true;
    if (logprobs->get(flag) != simdjson::SUCCESS || flag) return NotSupported("logprobs");
  }
  if (const auto format = body.Find("response_format")) {
    std::string_view type;
    if (format->at_key("type").get(type) != simdjson::SUCCESS) {
      return FieldError("response_format", "must be an object with a type");
    }
    if (type != "text") return NotSupported("response_format");
  }
  ESSOR_ASSIGN_OR_RETURN(const std::optional<int64_t> best_of, body.Integer("best_of"));
  ESSOR_ASSIGN_OR_RETURN(const std::optional<int64_t> n, body.Integer("n"));
  if (best_of.has_value() && best_of != n.value_or(1)) return NotSupported("best_of");
  return absl::OkStatus();
}

absl::Status ReadCommon(const JsonBody& body, CompletionRequest* request, GenerateParams* params) {
  ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> model, body.String("model"));
  params->model = model.value_or("");
  ESSOR_ASSIGN_OR_RETURN(request->stream, body.Bool("stream", false));
  ESSOR_ASSIGN_OR_RETURN(request->return_token_ids, body.Bool("return_token_ids", false));
  if (const auto options = body.Find("stream_options")) {
    if (!options->is_object()) return FieldError("stream_options", "must be an object");
    if (!request->stream) {
      return FieldError("stream_options", "is only allowed together with stream");
    }
    bool include_usage = false;
    const auto error = options->at_key("include_usage").get(include_usage);
    if (error != simdjson::SUCCESS && error != simdjson::NO_SUCH_FIELD) {
      return FieldError("stream_options", "include_usage must be true or false");
    }
    request->include_usage = include_usage;
  }
  ESSOR_RETURN_IF_ERROR(RefuseUnsupported(body));
  ESSOR_RETURN_IF_ERROR(ReadSampling(body, &request->names, &params->sampling));
  const int64_t n = params->sampling.n.value_or(1);
  // Out of range is refused by RequestService; until then it must not size anything.
  request->n = n >= 1 && n <= kMaxContinuations ? static_cast<uint32_t>(n) : 1;
  return absl::OkStatus();
}

// prompt: a string, a list of strings, a list of ids, or a list of lists of ids.
absl::Status ReadPrompts(const JsonBody& body, const GenerateParams& shared,
                         std::vector<GenerateParams>* prompts) {
  const auto add = [&](auto input) {
    prompts->push_back(shared);
    prompts->back().input = std::move(input);
  };
  const auto prompt = body.Find("prompt");
  if (!prompt.has_value()) return FieldError("prompt", "is missing");
  std::string_view text;
  if (prompt->get(text) == simdjson::SUCCESS) {
    add(TextPrompt{.text = std::string(text)});
    return absl::OkStatus();
  }
  simdjson::dom::array array;
  if (prompt->get(array) != simdjson::SUCCESS) {
    return FieldError("prompt", "must be a string, an array of strings or arrays of token ids");
  }
  if (array.size() == 0) return FieldError("prompt", "is empty");
  const element first = array.at(0).value();
  if (first.is_number()) {
    ESSOR_ASSIGN_OR_RETURN(TokenPrompt ids, TokenArray(*prompt, "prompt"));
    add(std::move(ids));
    return absl::OkStatus();
  }
  if (array.size() > kMaxPrompts) {
    return FieldError("prompt", absl::StrCat(array.size(), " prompts are more than ", kMaxPrompts));
  }
  for (const element item : array) {
    if (item.get(text) == simdjson::SUCCESS) {
      add(TextPrompt{.text = std::string(text)});
    } else {
      ESSOR_ASSIGN_OR_RETURN(TokenPrompt ids, TokenArray(item, "prompt"));
      add(std::move(ids));
    }
  }
  return absl::OkStatus();
}

// A content of parts becomes the text of its parts.
absl::StatusOr<std::string> TextOfParts(const simdjson::dom::array& parts) {
  std::string text;
  for (const element part : parts) {
    std::string_view type;
    std::string_view piece;
    if (part.at_key("type").get(type) != simdjson::SUCCESS) {
      return FieldError("messages", "each part of a content needs a type");
    }
    if (type != "text") {
      return FieldError(
          "messages",
          absl::StrCat("content of type ", std::string(type.substr(0, 32)), " is not supported"));
    }
    if (part.at_key("text").get(piece) != simdjson::SUCCESS) {
      return FieldError("messages", "a text part needs a text");
    }
    text += piece;
  }
  return text;
}

absl::Status WriteMessage(const simdjson::dom::object& message, JsonWriter* writer) {
  std::string_view role;
  if (message.at_key("role").get(role) != simdjson::SUCCESS) {
    return FieldError("messages", "each message needs a role that is a string");
  }
  writer->StartObject();
  for (const auto field : message) {
    writer->Key(field.key.data(), static_cast<rapidjson::SizeType>(field.key.size()));
    simdjson::dom::array parts;
    if (field.key == "content" && field.value.get(parts) == simdjson::SUCCESS) {
      ESSOR_ASSIGN_OR_RETURN(const std::string text, TextOfParts(parts));
      writer->String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
      continue;
    }
    if (field.key == "content" && !field.value.is_string() && !field.value.is_null()) {
      return FieldError("messages", "a content must be a string or an array of parts");
    }
    const std::string json = simdjson::minify(field.value);
    writer->RawValue(json.data(), json.size(), rapidjson::kObjectType);
  }
  writer->EndObject();
  return absl::OkStatus();
}

absl::StatusOr<ChatPrompt> ReadChat(const JsonBody& body) {
  const auto messages = body.Find("messages");
  simdjson::dom::array array;
  if (!messages.has_value()) return FieldError("messages", "is missing");
  if (messages->get(array) != simdjson::SUCCESS || array.size() == 0) {
    return FieldError("messages", "must be a non-empty array");
  }
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartArray();
  for (const element item : array) {
    simdjson::dom::object message;
    if (item.get(message) != simdjson::SUCCESS) {
      return FieldError("messages", "each message must be an object");
    }
    ESSOR_RETURN_IF_ERROR(WriteMessage(message, &writer));
  }
  writer.EndArray();
  ChatPrompt chat;
  chat.messages_json = std::string(buffer.GetString(), buffer.GetSize());
  ESSOR_ASSIGN_OR_RETURN(chat.add_generation_prompt, body.Bool("add_generation_prompt", true));
  ESSOR_ASSIGN_OR_RETURN(chat.continue_final_message, body.Bool("continue_final_message", false));
  if (const auto kwargs = body.Find("chat_template_kwargs")) {
    if (!kwargs->is_object()) return FieldError("chat_template_kwargs", "must be an object");
    chat.kwargs_json = simdjson::minify(*kwargs);
  }
  return chat;
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletion(std::string_view text) {
  JsonBody body;
  ESSOR_RETURN_IF_ERROR(body.Parse(text));
  CompletionRequest request;
  GenerateParams shared;
  ESSOR_RETURN_IF_ERROR(ReadCommon(body, &request, &shared));
  shared.default_max_new_tokens = kCompletionMaxTokens;
  ESSOR_RETURN_IF_ERROR(ReadPrompts(body, shared, &request.prompts));
  return request;
}

absl::StatusOr<CompletionRequest> ParseChatCompletion(std::string_view text) {
  JsonBody body;
  ESSOR_RETURN_IF_ERROR(body.Parse(text));
  CompletionRequest request;
  request.chat = true;
  request.names.prompt = "messages";
  GenerateParams params;
  ESSOR_RETURN_IF_ERROR(ReadCommon(body, &request, &params));
  ESSOR_ASSIGN_OR_RETURN(params.input, ReadChat(body));
  request.prompts.push_back(std::move(params));
  return request;
}

absl::StatusOr<TokenizeBody> ParseTokenize(std::string_view text) {
  JsonBody body;
  ESSOR_RETURN_IF_ERROR(body.Parse(text));
  TokenizeBody request;
  ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> model, body.String("model"));
  ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> prompt, body.String("prompt"));
  ESSOR_ASSIGN_OR_RETURN(request.add_special_tokens, body.Bool("add_special_tokens", true));
  if (!prompt.has_value()) return FieldError("prompt", "is missing");
  request.model = model.value_or("");
  request.prompt = *prompt;
  return request;
}

absl::StatusOr<DetokenizeBody> ParseDetokenize(std::string_view text) {
  JsonBody body;
  ESSOR_RETURN_IF_ERROR(body.Parse(text));
  DetokenizeBody request;
  ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> model, body.String("model"));
  const auto tokens = body.Find("tokens");
  if (!tokens.has_value()) return FieldError("tokens", "is missing");
  ESSOR_ASSIGN_OR_RETURN(request.tokens, TokenArray(*tokens, "tokens"));
  request.model = model.value_or("");
  return request;
}

}  // namespace essor::coordinator
