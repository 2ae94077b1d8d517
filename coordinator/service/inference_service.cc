#include "coordinator/service/inference_service.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "coordinator/service/chat_json.h"
#include "coordinator/service/response_stream.h"

namespace essor::coordinator {
namespace {

// Clients' default limit on a message is 4 MiB; logits and prompts are cut to stay well below.
constexpr size_t kMaxLogitsMessageBytes = 2 << 20;
constexpr size_t kTokensAtOnce = 4096;  // each with up to kMaxLogprobs probable ones

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  // gRPC's deadline is on the wall clock, the driver's on the monotonic one.
  const auto left = deadline - std::chrono::system_clock::now();
  return Clock::Steady().Now() + absl::FromChrono(left);
}

template <typename Request>
ServiceRequest ServiceOf(const Request& request) {
  return {.priority = request.priority(),
          .tenant = request.tenant(),
          .cache_salt = request.cache_salt()};
}

SamplingRequest FromProto(const v1::SamplingParams& from) {
  SamplingRequest to;
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_seed()) to.seed = from.seed();
  if (from.has_max_new_tokens()) to.max_new_tokens = from.max_new_tokens();
  if (from.has_n()) to.n = from.n();
  to.ignore_eos = from.ignore_eos();
  to.stop = {from.stop().begin(), from.stop().end()};
  to.stop_token_ids = {from.stop_token_ids().begin(), from.stop_token_ids().end()};
  if (from.has_typical_p()) to.typical_p = from.typical_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  to.logit_bias = {from.logit_bias().begin(), from.logit_bias().end()};
  std::sort(to.logit_bias.begin(), to.logit_bias.end());  // a map has no order
  if (from.has_min_new_tokens()) to.min_new_tokens = from.min_new_tokens();
  return to;
}

GenerateParams FromProto(const v1::GenerateRequest& request) {
  GenerateParams params;
  params.request_id = request.request_id();
  params.model = request.model();
  switch (request.input_case()) {
    case v1::GenerateRequest::kText:
      params.input = TextPrompt{.text = request.text()};
      break;
    case v1::GenerateRequest::kTokens:
      params.input = TokenPrompt(request.tokens().ids().begin(), request.tokens().ids().end());
      break;
    case v1::GenerateRequest::kChat:
      params.input = ChatPrompt{.messages_json = MessagesJson(request.chat()),
                                .tools_json = request.chat().tools_json(),
                                .kwargs_json = request.chat().template_kwargs_json(),
                                .add_generation_prompt = true,
                                .continue_final_message = request.chat().continue_final_message()};
      break;
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  params.sampling = FromProto(request.sampling());
  if (request.has_logprobs()) params.output.logprobs = request.logprobs();
  if (request.has_prompt_logprobs()) params.output.prompt_logprobs = request.prompt_logprobs();
  if (request.has_best_of()) params.output.best_of = request.best_of();
  params.output.echo = request.echo();
  params.service = ServiceOf(request);
  return params;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

uint64_t Microseconds(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(absl::ToInt64Microseconds(duration), 0));
}

void ToProto(float logprob, const std::vector<std::pair<TokenId, float>>& top,
             v1::TokenLogprobs* proto) {
  proto->set_logprob(logprob);
  for (const auto& [token, value] : top) {
    proto->add_top_ids(token);
    proto->add_top_logprobs(value);
  }
}

class GenerateStream final : public ResponseStream<v1::GenerateResponse> {
 public:
  using ResponseStream::ResponseStream;
  void set_request_id(std::string request_id) { request_id_ = std::move(request_id); }

  void OnPrompt(PromptOutput output) override {
    const size_t num_tokens = output.token_ids.size();
    for (size_t begin = 0; begin < num_tokens; begin += kTokensAtOnce) {
      const size_t end = std::min(begin + kTokensAtOnce, num_tokens);
      v1::GenerateResponse response;
      response.set_request_id(request_id_);
      v1::PromptPart* const part = response.mutable_prompt();
      part->mutable_token_ids()->Add(output.token_ids.begin() + begin,
                                     output.token_ids.begin() + end);
      if (begin == 0) part->set_text(std::move(output.text));
      for (size_t i = begin; i < std::min(end, output.logprobs.size()); ++i) {
        ToProto(output.logprobs[i].logprob, output.logprobs[i].top, part->add_logprobs());
      }
      Write(std::move(response),
            [](v1::GenerateResponse*, const v1::GenerateResponse&) { return false; });
    }
  }

  // With best_of a whole continuation comes at once; its text then goes with the last message.
  void OnTokens(TokenOutput output) override {
    const size_t num_tokens = output.token_ids.size();
    for (size_t begin = 0; begin < num_tokens; begin += kTokensAtOnce) {
      const size_t end = std::min(begin + kTokensAtOnce, num_tokens);
      v1::GenerateResponse response;
      response.set_request_id(request_id_);
      response.set_index(output.index);
      response.mutable_token_ids()->Add(output.token_ids.begin() + begin,
                                        output.token_ids.begin() + end);
      for (size_t i = begin; i < std::min(end, output.logprobs.size()); ++i) {
        ToProto(output.logprobs[i].logprob, output.logprobs[i].top, response.add_logprobs());
      }
      if (end == num_tokens) End(&output, &response);
      Write(std::move(response), MergeTokens);
    }
  }

 private:
  // What the last message of `output` has beside tokens.
  static void End(TokenOutput* output, v1::GenerateResponse* response) {
    response->set_text(std::move(output->text));
    response->set_finish_reason(ToProto(output->finish_reason));
    if (output->finish_reason == FinishReason::kNone) return;
    response->mutable_usage()->set_prompt_tokens(output->usage.prompt_tokens);
    response->mutable_usage()->set_generated_tokens(output->usage.generated_tokens);
    response->mutable_usage()->set_cached_tokens(output->usage.cached_tokens);
    response->mutable_timing()->set_queue_us(Microseconds(output->timing.queue));
    response->mutable_timing()->set_first_token_us(Microseconds(output->timing.first_token));
    response->mutable_timing()->set_total_us(Microseconds(output->timing.total));
  }

  // Tokens that wait anyway travel in one message, as long as it stays a small one.
  static bool MergeTokens(v1::GenerateResponse* last, const v1::GenerateResponse& next) {
    const auto num_tokens = static_cast<size_t>(last->token_ids_size() + next.token_ids_size());
    if (last->index() != next.index() || last->has_prompt() || num_tokens > kTokensAtOnce) {
      return false;
    }
    last->MergeFrom(AppendText(last, next));
    return true;
  }

  // MergeFrom() would replace the text where it must grow.
  static v1::GenerateResponse AppendText(v1::GenerateResponse* last,
                                         const v1::GenerateResponse& next) {
    v1::GenerateResponse merged = next;
    merged.set_text(last->text() + next.text());
    return merged;
  }

  std::string request_id_;
};

class ScoreStream final : public ResponseStream<v1::ScoreResponse> {
 public:
  explicit ScoreStream(uint32_t vocab_size)
      : ResponseStream(kMaxUnreadScoreBytes), row_bytes_(vocab_size * sizeof(float)) {}

  void OnScores(ScoreOutput output) override {
    const bool with_logits = !output.logits.empty();
    const auto rows_at_once =
        static_cast<uint32_t>(with_logits ? std::max<size_t>(kMaxLogitsMessageBytes / row_bytes_, 1)
                                          : output.num_positions);
    for (uint32_t row = 0; row < output.num_positions; row += rows_at_once) {
      const uint32_t rows = std::min(rows_at_once, output.num_positions - row);
      v1::ScoreResponse response;
      response.set_sequence_index(output.sequence_index);
      response.set_first_position(output.first_position + row);
      response.set_num_positions(rows);
      const size_t end = std::min<size_t>(row + rows, output.logprobs.size());
      for (size_t i = row; i < end; ++i) response.add_logprobs(output.logprobs[i]);
      for (size_t i = row; i < std::min(end, output.tops.size()); ++i) {
        ToProto(output.logprobs[i], output.tops[i], response.add_tops());
      }
      if (with_logits) {
        response.set_logits(output.logits.substr(row * row_bytes_, rows * row_bytes_));
      }
      Write(std::move(response),
            [](v1::ScoreResponse*, const v1::ScoreResponse&) { return false; });
    }
  }

 private:
  const size_t row_bytes_;
};

}  // namespace

void FillModelInfo(const ServedModel& model, v1::ModelInfo* info) {
  info->set_name(model.name);
  info->set_family(model.family);
  info->set_max_context_tokens(model.limits.max_context_tokens);
  info->set_vocab_size(model.limits.vocab_size);
  info->set_num_parameters(model.num_parameters);
  info->set_weight_format(model.weight_format);
  info->set_fingerprint(model.fingerprint);
  info->set_created_unix_s(model.created_unix_s);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  GenerateParams params = FromProto(*request);
  params.deadline = DeadlineOf(*context);
  if (params.request_id.empty()) params.request_id = NewRequestId("req-");
  // What is told in one go no client can have read meanwhile; it is bounded by the context.
  const bool tells_at_once = params.output.echo || params.output.prompt_logprobs.has_value() ||
                             params.output.best_of.has_value();
  const auto stream =
      std::make_shared<GenerateStream>(tells_at_once ? kMaxUnreadScoreBytes : kMaxUnreadBytes);
  stream->set_request_id(params.request_id);
  stream->Begin([&](std::shared_ptr<RequestSink> sink) {
    return service_.Generate(std::move(params), std::move(sink));
  });
  return stream.get();
}

grpc::ServerWriteReactor<v1::ScoreResponse>* InferenceService::Score(
    grpc::CallbackServerContext* context, const v1::ScoreRequest* request) {
  const auto stream = std::make_shared<ScoreStream>(service_.model().limits.vocab_size);
  ScoreParams params{.request_id = request->request_id(),
                     .model = request->model(),
                     .sequences = {},
                     .return_logits = request->return_logits(),
                     .top_n = request->top_n(),
                     .service = ServiceOf(*request),
                     .deadline = DeadlineOf(*context)};
  for (const v1::TokenIds& sequence : request->sequences()) {
    params.sequences.emplace_back(sequence.ids().begin(), sequence.ids().end());
  }
  stream->Begin([&](std::shared_ptr<RequestSink> sink) {
    return service_.Score(std::move(params), std::move(sink));
  });
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const bool add_special = !request->has_add_special_tokens() || request->add_special_tokens();
  service_.Tokenize(request->model(), request->text(), add_special,
                    [reactor, response](absl::StatusOr<std::vector<TokenId>> ids) {
                      if (ids.ok()) response->mutable_token_ids()->Add(ids->begin(), ids->end());
                      reactor->Finish(ToGrpcStatus(ids.status()));
                    });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const bool skip_special = request->has_skip_special_tokens() && request->skip_special_tokens();
  service_.Detokenize(request->model(), {request->token_ids().begin(), request->token_ids().end()},
                      skip_special, [reactor, response](absl::StatusOr<std::string> text) {
                        if (text.ok()) response->set_text(*std::move(text));
                        reactor->Finish(ToGrpcStatus(text.status()));
                      });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* request,
                                                     v1::GetModelResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::Status status = service_.CheckModel(request->model());
  if (status.ok()) FillModelInfo(service_.model(), response->mutable_model());
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest* /*request*/,
                                                       v1::ListModelsResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  FillModelInfo(service_.model(), response->add_models());
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace essor::coordinator
