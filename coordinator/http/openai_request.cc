#include "coordinator/http/openai_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "common/status_macros.h"
#include "coordinator/http/json_body.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::coordinator {
namespace {

using simdjson::dom::element;

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

// {"id": bias}: keys of JSON are strings.
absl::Status ReadLogitBias(const JsonBody& body, SamplingRequest* sampling) {
  const auto biases = body.Find("logit_bias");
  if (!biases.has_value()) return absl::OkStatus();
  simdjson::dom::object object;
  if (biases->get(object) != simdjson::SUCCESS) {
    return FieldError("logit_bias", "must be an object of biases by token id");
  }
  for (const auto field : object) {
    int64_t id = 0;
    double bias = 0;
    const std::string key(field.key);
    if (!absl::SimpleAtoi(key, &id)) {
      return FieldError("logit_bias", absl::StrCat("'", key.substr(0, 32), "' is not a token id"));
    }
    if (field.value.get(bias) != simdjson::SUCCESS) {
      return FieldError("logit_bias", absl::StrCat("the bias of ", id, " is not a number"));
    }
    sampling->logit_bias.emplace_back(id, bias);
  }
  return absl::OkStatus();
}

absl::Status ReadPenalties(const JsonBody& body, SamplingRequest* sampling) {
  ESSOR_ASSIGN_OR_RETURN(sampling->repetition_penalty, body.Number("repetition_penalty"));
  ESSOR_ASSIGN_OR_RETURN(sampling->presence_penalty, body.Number("presence_penalty"));
  ESSOR_ASSIGN_OR_RETURN(sampling->frequency_penalty, body.Number("frequency_penalty"));
  return ReadLogitBias(body, sampling);
}

absl::Status ReadSampling(const JsonBody& body, FieldNames* names, SamplingRequest* sampling) {
  ESSOR_ASSIGN_OR_RETURN(sampling->temperature, body.Number("temperature"));
  ESSOR_ASSIGN_OR_RETURN(sampling->top_p, body.Number("top_p"));
  ESSOR_ASSIGN_OR_RETURN(sampling->min_p, body.Number("min_p"));
  ESSOR_ASSIGN_OR_RETURN(sampling->top_k, body.Integer("top_k"));
  if (sampling->top_k == -1) sampling->top_k = 0;  // a common way to say "off"
  ESSOR_ASSIGN_OR_RETURN(sampling->typical_p, body.Number("typical_p"));
  ESSOR_ASSIGN_OR_RETURN(sampling->min_new_tokens, body.Integer("min_tokens"));
  ESSOR_RETURN_IF_ERROR(ReadPenalties(body, sampling));
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
  ESSOR_ASSIGN_OR_RETURN(const bool beams, body.Bool("use_beam_search", false));
  if (beams) return NotSupported("use_beam_search");
  for (const char* field : {"suffix", "functions", "tools", "audio"}) {
    const auto value = body.Find(field);
    if (!value.has_value()) continue;
    const bool empty = (value->is_array() && value->get_array().size() == 0) ||
                       (value->is_object() && value->get_object().size() == 0) ||
                       (value->is_string() && value->get_string().value().empty());
    if (!empty) return NotSupported(field);
  }
  if (const auto format = body.Find("response_format")) {
    std::string_view type;
    if (format->at_key("type").get(type) != simdjson::SUCCESS) {
      return FieldError("response_format", "must be an object with a type");
    }
    if (type != "text") return NotSupported("response_format");
  }
  return absl::OkStatus();
}

// Completions: "logprobs" is the number of most probable tokens.
absl::Status ReadCompletionOutput(const JsonBody& body, CompletionRequest* request,
                                  OutputRequest* output) {
  const auto logprobs = body.Find("logprobs");
  bool flag = true;
  const bool off = logprobs.has_value() && logprobs->get(flag) == simdjson::SUCCESS && !flag;
  if (!off) {
    ESSOR_ASSIGN_OR_RETURN(output->logprobs, body.Integer("logprobs"));
  }
  ESSOR_ASSIGN_OR_RETURN(output->echo, body.Bool("echo", false));
  request->answer.echo = output->echo;
  // An echoed prompt's tokens have log-probabilities as the others have. Numbers that are no counts
  // are refused later.
  if (output->echo && output->logprobs.has_value()) {
    request->answer.most_logprobs = static_cast<uint32_t>(*output->logprobs);
    output->prompt_logprobs =
        std::max(*output->logprobs, output->prompt_logprobs.value_or(*output->logprobs));
  }
  return absl::OkStatus();
}

// Chat: "logprobs" switches them on, "top_logprobs" is the number.
absl::Status ReadChatOutput(const JsonBody& body, CompletionRequest* request,
                            OutputRequest* output) {
  request->names.logprobs = "top_logprobs";
  ESSOR_ASSIGN_OR_RETURN(const bool echo, body.Bool("echo", false));
  if (echo) return NotSupported("echo");
  ESSOR_ASSIGN_OR_RETURN(const bool logprobs, body.Bool("logprobs", false));
  ESSOR_ASSIGN_OR_RETURN(const std::optional<int64_t> top, body.Integer("top_logprobs"));
  if (top.value_or(0) != 0 && !logprobs) {
    return FieldError("top_logprobs", "is only allowed together with logprobs");
  }
  if (logprobs) output->logprobs = top.value_or(0);
  return absl::OkStatus();
}

absl::Status ReadOutput(const JsonBody& body, CompletionRequest* request, GenerateParams* params) {
  OutputRequest& output = params->output;
  ESSOR_ASSIGN_OR_RETURN(output.best_of, body.Integer("best_of"));
  ESSOR_ASSIGN_OR_RETURN(output.prompt_logprobs, body.Integer("prompt_logprobs"));
  request->answer.prompt_logprobs = output.prompt_logprobs.has_value();
  if (output.prompt_logprobs.has_value()) {
    request->answer.most_prompt_logprobs = static_cast<uint32_t>(*output.prompt_logprobs);
  }
  if (request->stream && output.prompt_logprobs.has_value()) {
    return FieldError("prompt_logprobs", "is not allowed together with stream");
  }
  if (request->stream && output.best_of.value_or(0) > params->sampling.n.value_or(1)) {
    return FieldError("best_of", "of more than n cannot be streamed");
  }
  ESSOR_RETURN_IF_ERROR(request->chat ? ReadChatOutput(body, request, &output)
                                      : ReadCompletionOutput(body, request, &output));
  request->answer.logprobs = output.logprobs.has_value();
  return absl::OkStatus();
}

absl::Status ReadService(const JsonBody& body, ServiceRequest* service) {
  ESSOR_ASSIGN_OR_RETURN(const std::optional<int64_t> priority, body.Integer("priority"));
  service->priority = priority.value_or(0);
  ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> salt, body.String("cache_salt"));
  service->cache_salt = salt.value_or("");
  return absl::OkStatus();
}

absl::Status ReadCommon(const JsonBody& body, CompletionRequest* request, GenerateParams* params) {
  ESSOR_ASSIGN_OR_RETURN(const std::optional<std::string> model, body.String("model"));
  params->model = model.value_or("");
  ESSOR_ASSIGN_OR_RETURN(request->stream, body.Bool("stream", false));
  ESSOR_ASSIGN_OR_RETURN(request->answer.return_token_ids, body.Bool("return_token_ids", false));
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
    request->answer.include_usage = include_usage;
  }
  ESSOR_RETURN_IF_ERROR(RefuseUnsupported(body));
  ESSOR_RETURN_IF_ERROR(ReadSampling(body, &request->names, &params->sampling));
  ESSOR_RETURN_IF_ERROR(ReadOutput(body, request, params));
  ESSOR_RETURN_IF_ERROR(ReadService(body, &params->service));
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
