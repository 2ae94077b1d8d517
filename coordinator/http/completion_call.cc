#include "coordinator/http/completion_call.h"

#include <chrono>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"

namespace essor::coordinator {

namespace {

size_t BytesOf(const TokenOutput& output) {
  size_t bytes = output.text.size() + output.token_ids.size() * sizeof(TokenId);
  for (const TokenLogprob& logprob : output.logprobs) {
    bytes += sizeof(logprob) + logprob.top.size() * sizeof(logprob.top[0]);
  }
  return bytes;
}

// What `next` says goes on after `last`; usage and the like are those of `next`.
void Merge(TokenOutput last, TokenOutput* next) {
  next->text.insert(0, last.text);
  next->token_ids.insert(next->token_ids.begin(), last.token_ids.begin(), last.token_ids.end());
  next->logprobs.insert(next->logprobs.begin(), std::make_move_iterator(last.logprobs.begin()),
                        std::make_move_iterator(last.logprobs.end()));
}

}  // namespace

class CompletionCall::Sink final : public RequestSink {
 public:
  Sink(std::shared_ptr<CompletionCall> call, uint32_t index)
      : call_(std::move(call)), index_(index) {}
  void OnPrompt(PromptOutput output) override {
    call_->Push({.index = index_, .prompt = std::move(output)});
  }
  void OnTokens(TokenOutput output) override {
    call_->Push({.index = index_, .tokens = std::move(output)});
  }
  void OnDone(absl::Status status) override {
    call_->Push({.index = index_, .done = std::move(status)});
  }

 private:
  const std::shared_ptr<CompletionCall> call_;
  const uint32_t index_;
};

CompletionCall::CompletionCall(std::shared_ptr<net::io_context> context,
                               net::any_io_executor executor, size_t max_unread_bytes)
    : context_(std::move(context)),
      executor_(executor),
      wake_(executor),
      max_unread_bytes_(max_unread_bytes) {}

void CompletionCall::Start(RequestService* service, std::vector<GenerateParams> prompts) {
  for (uint32_t i = 0; i < prompts.size(); ++i) {
    auto sink = std::make_shared<Sink>(shared_from_this(), i);
    std::shared_ptr<RequestHandle> handle =
        service->Generate(std::move(prompts[i]), std::move(sink));
    std::optional<absl::Status> cancelled;
    {
      absl::MutexLock lock(&mutex_);
      handles_.push_back(handle);
      cancelled = cancelled_;
    }
    if (cancelled.has_value()) handle->Cancel(*cancelled);
  }
}

void CompletionCall::Push(Item item) {
  bool overflow = false;
  {
    absl::MutexLock lock(&mutex_);
    if (item.tokens.has_value()) {
      unread_bytes_ += BytesOf(*item.tokens);
      overflow = unread_bytes_ > max_unread_bytes_;
    }
    // Tokens that wait anyway travel in one event.
    Item* const last = items_.empty() ? nullptr : &items_.back();
    const bool merges = last != nullptr && item.tokens.has_value() && last->tokens.has_value() &&
                        last->index == item.index && last->tokens->index == item.tokens->index;
    if (merges) {
      Merge(*std::move(last->tokens), &*item.tokens);
      *last = std::move(item);
    } else {
      items_.push_back(std::move(item));
    }
  }
  Wake();
  if (!overflow) return;
  Cancel(WithReason(
      absl::ResourceExhaustedError(absl::StrCat("the caller does not read its stream: more than ",
                                                max_unread_bytes_, " bytes wait")),
      "SLOW_READER"));
}

void CompletionCall::Wake() {
  // A coroutine that is not waiting looks at the items before it waits, on the same executor, so
  // a wake-up cannot be lost.
  net::post(executor_, [self = shared_from_this()] { self->wake_.cancel(); });
}

net::awaitable<std::vector<CompletionCall::Item>> CompletionCall::Pop() {
  while (true) {
    std::vector<Item> items;
    {
      absl::MutexLock lock(&mutex_);
      items.swap(items_);
      unread_bytes_ = 0;
    }
    if (!items.empty()) co_return items;
    boost::system::error_code error;
    wake_.expires_after(std::chrono::hours(1));
    co_await wake_.async_wait(net::redirect_error(net::use_awaitable, error));
  }
}

void CompletionCall::Cancel(const absl::Status& reason) {
  std::vector<std::shared_ptr<RequestHandle>> handles;
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_.has_value()) return;
    cancelled_ = reason;
    handles = handles_;
  }
  for (const auto& handle : handles) handle->Cancel(reason);
}

void CompletionCall::Disconnect() {
  const absl::Status reason = absl::CancelledError("the client hung up");
  Cancel(reason);
  Push({.index = 0, .done = reason});
}

}  // namespace essor::coordinator
