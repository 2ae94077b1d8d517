#include "coordinator/service/request_service.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/error_details.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "model/chat/prompt_encoding.h"

namespace essor::coordinator {
namespace {

constexpr absl::Duration kRetryDelay = absl::Seconds(1);
// Normalisation (NFC) never shrinks a text to less than a third; four leaves room.
constexpr size_t kNormalisationFactor = 4;

uint64_t RandomBits() {
  static thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator();
}

size_t MaxPromptBytes(const ServedModel& model) {
  size_t longest_token = 1;
  if (model.tokenizer != nullptr) {
    for (TokenId id = 0; id < model.tokenizer->vocab_size(); ++id) {
      longest_token = std::max(longest_token, model.tokenizer->TokenBytes(id).size());
    }
  }
  return longest_token * model.limits.max_context_tokens * kNormalisationFactor;
}

absl::Status PoolIsFull() {
  return WithReason(
      WithRetryDelay(absl::ResourceExhaustedError("too many texts wait to be tokenised"),
                     kRetryDelay),
      "QUEUE_FULL");
}

const char* FieldOfInput(const GenerateParams& params) {
  if (std::holds_alternative<TextPrompt>(params.input)) return "text";
  if (std::holds_alternative<ChatPrompt>(params.input)) return "chat";
  return "tokens.ids";
}

}  // namespace

std::string NewRequestId(const std::string& prefix) {
  return absl::StrFormat("%s%016x%016x", prefix, RandomBits(), RandomBits());
}

RequestService::RequestService(const ServedModel* model, Driver* driver, TextPool* pool)
    : model_(*model), driver_(*driver), pool_(*pool), max_prompt_bytes_(MaxPromptBytes(*model)) {}

absl::Status RequestService::CheckModel(const std::string& name) const {
  if (name.empty() || name == model_.name) return absl::OkStatus();
  return WithReason(
      WithField(absl::NotFoundError(absl::StrCat("model: '", LogSafe(name),
                                                 "' is not served here, '", model_.name, "' is")),
                "model"),
      "MODEL_NOT_FOUND");
}

absl::Status RequestService::CheckBeforeText(const GenerateParams& params) const {
  ESSOR_RETURN_IF_ERROR(ValidateRequestId(params.request_id));
  ESSOR_RETURN_IF_ERROR(CheckModel(params.model));
  if (std::holds_alternative<std::monostate>(params.input)) {
    return FieldError("input", "one of text, tokens and chat is needed");
  }
  ESSOR_RETURN_IF_ERROR(ValidateSampling(params.sampling, model_.limits));
  ESSOR_RETURN_IF_ERROR(ValidateOutput(params.output, params.sampling));
  ESSOR_RETURN_IF_ERROR(MakeService(params.service).status());
  const auto* text = std::get_if<TextPrompt>(&params.input);
  const auto* chat = std::get_if<ChatPrompt>(&params.input);
  const size_t bytes = text != nullptr   ? text->text.size()
                       : chat != nullptr ? chat->messages_json.size()
                                         : 0;
  if (bytes <= max_prompt_bytes_) return absl::OkStatus();
  return WithReason(
      FieldError(FieldOfInput(params), absl::StrCat(bytes, " bytes cannot fit the context of ",
                                                    model_.limits.max_context_tokens, " tokens")),
      "CONTEXT_LENGTH_EXCEEDED");
}

std::shared_ptr<RequestHandle> RequestService::Generate(GenerateParams params,
                                                        std::shared_ptr<RequestSink> sink) {
  absl::Status status = CheckBeforeText(params);
  const bool named = status.ok() && !params.request_id.empty();
  const std::shared_ptr<Driver::Ticket> ticket =
      driver_.TakeTicket(named ? params.request_id : NewRequestId("req-"));
  auto handle = std::make_shared<RequestHandle>(&driver_, ticket);
  if (!status.ok()) {
    sink->OnDone(std::move(status));
    return handle;
  }
  const bool needs_text = !std::holds_alternative<TokenPrompt>(params.input);
  auto submit = [this, ticket, params = std::move(params), sink]() mutable {
    absl::StatusOr<GenerateTask> task = Prepare(std::move(params));
    if (!task.ok()) return sink->OnDone(task.status());
    driver_.Submit(ticket, *std::move(task), std::move(sink));
  };
  if (!needs_text) {
    submit();
  } else if (!pool_.TryRun(std::move(submit))) {
    sink->OnDone(PoolIsFull());
  }
  return handle;
}

absl::StatusOr<GenerateTask> RequestService::Prepare(GenerateParams params) const {
  GenerateInput input;
  input.prompt_field = FieldOfInput(params);
  if (auto* tokens = std::get_if<TokenPrompt>(&params.input)) {
    input.prompt = std::move(*tokens);
  } else {
    ESSOR_ASSIGN_OR_RETURN(input.prompt, EncodePrompt(params));
  }
  input.sampling = std::move(params.sampling);
  input.output = params.output;
  input.service = std::move(params.service);
  if (!input.sampling.max_new_tokens.has_value() && params.default_max_new_tokens.has_value() &&
      input.prompt.size() < model_.limits.max_context_tokens) {
    const size_t room = model_.limits.max_context_tokens - input.prompt.size();
    input.sampling.max_new_tokens =
        static_cast<int64_t>(std::min<size_t>(*params.default_max_new_tokens, room));
  }
  input.drawn_seed = RandomBits();
  input.deadline = params.deadline;
  return MakeGenerateTask(std::move(input), model_.limits);
}

absl::StatusOr<std::vector<TokenId>> RequestService::EncodePrompt(
    const GenerateParams& params) const {
  if (const auto* chat = std::get_if<ChatPrompt>(&params.input)) return EncodeMessages(*chat);
  const auto& prompt = std::get<TextPrompt>(params.input);
  return EncodeText(prompt.text, prompt.add_special);
}

absl::StatusOr<std::vector<TokenId>> RequestService::EncodeText(const std::string& text,
                                                                bool add_special) const {
  if (model_.tokenizer == nullptr) {
    return WithField(absl::FailedPreconditionError("text: the model has no tokenizer"), "text");
  }
  absl::StatusOr<std::vector<TokenId>> ids =
      model_.tokenizer->Encode(text, {.add_special = add_special, .parse_special = false});
  if (ids.ok()) return ids;
  return WithField(absl::Status(ids.status().code(),
                                absl::StrCat("text: ", std::string(ids.status().message()))),
                   "text");
}

absl::StatusOr<std::vector<TokenId>> RequestService::EncodeMessages(const ChatPrompt& chat) const {
  if (model_.tokenizer == nullptr || model_.chat_template == nullptr) {
    return WithField(absl::FailedPreconditionError("chat: the model has no chat template"), "chat");
  }
  if (chat.continue_final_message) {
    return WithField(absl::UnimplementedError("chat.continue_final_message: is not supported yet"),
                     "chat.continue_final_message");
  }
  const model::ChatInput input{.messages_json = chat.messages_json,
                               .tools_json = chat.tools_json,
                               .add_generation_prompt = chat.add_generation_prompt,
                               .kwargs_json = chat.kwargs_json,
                               .now = absl::Now()};
  absl::StatusOr<std::vector<TokenId>> ids =
      model::EncodeChat(*model_.chat_template, *model_.tokenizer, input);
  if (ids.ok()) return ids;
  return WithField(absl::Status(ids.status().code(),
                                absl::StrCat("chat: ", std::string(ids.status().message()))),
                   "chat");
}

std::shared_ptr<RequestHandle> RequestService::Score(ScoreParams params,
                                                     std::shared_ptr<RequestSink> sink) {
  absl::Status status = ValidateRequestId(params.request_id);
  if (status.ok()) status = CheckModel(params.model);
  const bool named = status.ok() && !params.request_id.empty();
  const std::shared_ptr<Driver::Ticket> ticket =
      driver_.TakeTicket(named ? params.request_id : NewRequestId("req-"));
  auto handle = std::make_shared<RequestHandle>(&driver_, ticket);
  if (!status.ok()) {
    sink->OnDone(std::move(status));
    return handle;
  }
  absl::StatusOr<ScoreTask> task = MakeScoreTask({.sequences = std::move(params.sequences),
                                                  .return_logits = params.return_logits,
                                                  .top_n = params.top_n,
                                                  .service = std::move(params.service),
                                                  .deadline = params.deadline},
                                                 model_.limits);
  if (!task.ok()) {
    sink->OnDone(task.status());
    return handle;
  }
  driver_.Submit(ticket, *std::move(task), std::move(sink));
  return handle;
}

void RequestService::Tokenize(std::string model, std::string text, bool add_special,
                              std::function<void(absl::StatusOr<std::vector<TokenId>>)> done) {
  absl::Status status = CheckModel(model);
  if (!status.ok()) return done(std::move(status));
  const bool queued = pool_.TryRun(
      [this, text = std::move(text), add_special, done] { done(EncodeText(text, add_special)); });
  if (!queued) done(PoolIsFull());
}

void RequestService::Detokenize(std::string model, std::vector<TokenId> ids, bool skip_special,
                                std::function<void(absl::StatusOr<std::string>)> done) {
  absl::Status status = CheckModel(model);
  if (status.ok() && model_.tokenizer == nullptr) {
    status = absl::FailedPreconditionError("the model has no tokenizer");
  }
  if (!status.ok()) return done(std::move(status));
  const bool queued = pool_.TryRun([this, ids = std::move(ids), skip_special, done] {
    absl::StatusOr<std::string> text = model_.tokenizer->Decode(ids, skip_special);
    if (text.ok()) return done(std::move(text));
    done(FieldError("token_ids", std::string(text.status().message())));
  });
  if (!queued) done(PoolIsFull());
}

}  // namespace essor::coordinator
