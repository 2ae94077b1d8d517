#include "coordinator/http/openai_response.h"

#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::coordinator {
namespace {

void Put(JsonWriter& writer, const char* key, const std::string& value) {
  writer.Key(key);
  writer.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
}

void PutCount(JsonWriter& writer, const char* key, uint64_t value) {
  writer.Key(key);
  writer.Uint64(value);
}

void PutTokens(JsonWriter& writer, const char* key, const std::vector<TokenId>& tokens) {
  writer.Key(key);
  writer.StartArray();
  for (const TokenId token : tokens) writer.Uint(token);
  writer.EndArray();
}

void PutFinishReason(JsonWriter& writer, FinishReason reason) {
  writer.Key("finish_reason");
  switch (reason) {
    case FinishReason::kNone:
      writer.Null();
      return;
    case FinishReason::kStop:
      writer.String("stop");
      return;
    case FinishReason::kLength:
      writer.String("length");
      return;
  }
}

void PutUsage(JsonWriter& writer, const Usage& usage) {
  writer.Key("usage");
  writer.StartObject();
  PutCount(writer, "prompt_tokens", usage.prompt_tokens);
  PutCount(writer, "completion_tokens", usage.generated_tokens);
  PutCount(writer, "total_tokens", uint64_t{usage.prompt_tokens} + usage.generated_tokens);
  writer.Key("prompt_tokens_details");
  writer.StartObject();
  PutCount(writer, "cached_tokens", usage.cached_tokens);
  writer.EndObject();
  writer.EndObject();
}

void PutHead(JsonWriter& writer, const CompletionHead& head, const char* object) {
  Put(writer, "id", head.id);
  Put(writer, "object", object);
  writer.Key("created");
  writer.Int64(head.created_unix_s);
  Put(writer, "model", head.model);
}

void PutModel(JsonWriter& writer, const ServedModel& model) {
  writer.StartObject();
  Put(writer, "id", model.name);
  Put(writer, "object", "model");
  writer.Key("created");
  writer.Int64(model.created_unix_s);
  Put(writer, "owned_by", "essor");
  PutCount(writer, "max_model_len", model.limits.max_context_tokens);
  writer.EndObject();
}

std::string TextOf(const rapidjson::StringBuffer& buffer) {
  return std::string(buffer.GetString(), buffer.GetSize());
}

std::string EventOf(const rapidjson::StringBuffer& buffer) {
  std::string event;
  event.reserve(buffer.GetSize() + 8);
  event.append("data: ").append(buffer.GetString(), buffer.GetSize()).append("\n\n");
  return event;
}

const char* ChunkObject(const CompletionHead& head) {
  return head.chat ? "chat.completion.chunk" : "text_completion";
}

void PutNullUsage(JsonWriter& writer, const AnswerOptions& options) {
  if (!options.include_usage) return;
  writer.Key("usage");
  writer.Null();
}

void PutLogprobs(JsonWriter& writer, const CompletionHead& head, const Choice& choice,
                 const AnswerOptions& options) {
  writer.Key("logprobs");
  if (!options.logprobs) {
    writer.Null();
  } else if (head.chat) {
    PutChatLogprobs(choice, head.tokenizer, &writer);
  } else {
    PutCompletionLogprobs(choice, head.tokenizer, &writer);
  }
}

// Where the dialect has it: beside a completion's choice, beside the choices of a chat.
void PutPromptLogprobs(JsonWriter& writer, const CompletionHead& head, const Choice& choice,
                       const AnswerOptions& options) {
  if (!options.prompt_logprobs) return;
  writer.Key("prompt_logprobs");
  PutPromptLogprobs(choice, head.tokenizer, &writer);
}

}  // namespace

std::string CompletionBody(const CompletionHead& head, const std::vector<Choice>& choices,
                           const Usage& usage, const AnswerOptions& options) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  PutHead(writer, head, head.chat ? "chat.completion" : "text_completion");
  writer.Key("choices");
  writer.StartArray();
  for (size_t i = 0; i < choices.size(); ++i) {
    const Choice& choice = choices[i];
    writer.StartObject();
    PutCount(writer, "index", i);
    if (head.chat) {
      writer.Key("message");
      writer.StartObject();
      Put(writer, "role", "assistant");
      Put(writer, "content", choice.text);
      writer.EndObject();
    } else {
      Put(writer, "text", choice.text);
    }
    PutLogprobs(writer, head, choice, options);
    if (!head.chat) PutPromptLogprobs(writer, head, choice, options);
    PutFinishReason(writer, choice.finish_reason);
    if (options.return_token_ids) PutTokens(writer, "token_ids", choice.token_ids);
    writer.EndObject();
  }
  writer.EndArray();
  if (head.chat && !choices.empty()) PutPromptLogprobs(writer, head, choices[0], options);
  PutUsage(writer, usage);
  writer.EndObject();
  return TextOf(buffer);
}

std::string ChunkEvent(const CompletionHead& head, uint32_t index, const Choice& part,
                       const AnswerOptions& options) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  PutHead(writer, head, ChunkObject(head));
  writer.Key("choices");
  writer.StartArray();
  writer.StartObject();
  PutCount(writer, "index", index);
  if (head.chat) {
    writer.Key("delta");
    writer.StartObject();
    if (!part.text.empty() || part.finish_reason == FinishReason::kNone) {
      Put(writer, "content", part.text);
    }
    writer.EndObject();
  } else {
    Put(writer, "text", part.text);
  }
  PutLogprobs(writer, head, part, options);
  PutFinishReason(writer, part.finish_reason);
  if (options.return_token_ids) PutTokens(writer, "token_ids", part.token_ids);
  writer.EndObject();
  writer.EndArray();
  PutNullUsage(writer, options);
  writer.EndObject();
  return EventOf(buffer);
}

std::string RoleEvent(const CompletionHead& head, uint32_t index, const AnswerOptions& options) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  PutHead(writer, head, ChunkObject(head));
  writer.Key("choices");
  writer.StartArray();
  writer.StartObject();
  PutCount(writer, "index", index);
  writer.Key("delta");
  writer.StartObject();
  Put(writer, "role", "assistant");
  Put(writer, "content", "");
  writer.EndObject();
  writer.Key("logprobs");
  writer.Null();
  PutFinishReason(writer, FinishReason::kNone);
  writer.EndObject();
  writer.EndArray();
  PutNullUsage(writer, options);
  writer.EndObject();
  return EventOf(buffer);
}

std::string UsageEvent(const CompletionHead& head, const Usage& usage) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  PutHead(writer, head, ChunkObject(head));
  writer.Key("choices");
  writer.StartArray();
  writer.EndArray();
  PutUsage(writer, usage);
  writer.EndObject();
  return EventOf(buffer);
}

std::string ErrorEvent(std::string_view error_body) {
  std::string event("data: ");
  event.append(error_body).append("\n\n");
  return event;
}

std::string ModelListBody(const ServedModel& model) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  Put(writer, "object", "list");
  writer.Key("data");
  writer.StartArray();
  PutModel(writer, model);
  writer.EndArray();
  writer.EndObject();
  return TextOf(buffer);
}

std::string ModelBody(const ServedModel& model) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  PutModel(writer, model);
  return TextOf(buffer);
}

std::string TokensBody(const std::vector<TokenId>& tokens, uint32_t max_context_tokens) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  PutTokens(writer, "tokens", tokens);
  PutCount(writer, "count", tokens.size());
  PutCount(writer, "max_model_len", max_context_tokens);
  writer.EndObject();
  return TextOf(buffer);
}

std::string PromptBody(const std::string& prompt) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  Put(writer, "prompt", prompt);
  writer.EndObject();
  return TextOf(buffer);
}

std::string VersionBody(const std::string& version, const std::string& build) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  Put(writer, "version", version);
  Put(writer, "build", build);
  writer.EndObject();
  return TextOf(buffer);
}

}  // namespace essor::coordinator
