// What both front ends (gRPC and HTTP) call: requests in plain structs, checked and tokenised here
// and handed to the driver. There is no second copy of any of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/core/request_validation.h"
#include "coordinator/service/driver.h"
#include "coordinator/service/served_model.h"
#include "coordinator/service/text_pool.h"

namespace essor::coordinator {

struct TextPrompt {
  std::string text;
  bool add_special = true;
};
struct ChatPrompt {
  std::string messages_json;  // array of {role, content, ...}
  std::string tools_json;     // array, or empty
  std::string kwargs_json;    // object, or empty
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};
using TokenPrompt = std::vector<TokenId>;

struct GenerateParams {
  std::string request_id;  // empty: one is made
  std::string model;       // empty: the served one
  std::variant<std::monostate, TextPrompt, TokenPrompt, ChatPrompt> input;
  SamplingRequest sampling;
  OutputRequest output;
  ServiceRequest service;
  // Used instead of what the context leaves when max_new_tokens is unset.
  std::optional<uint32_t> default_max_new_tokens;
  absl::Time deadline = absl::InfiniteFuture();
};

struct ScoreParams {
  std::string request_id;
  std::string model;
  std::vector<std::vector<TokenId>> sequences;
  bool return_logits = false;
  int64_t top_n = 0;
  ServiceRequest service;
  absl::Time deadline = absl::InfiniteFuture();
};

// One request under way. Thread-safe; may outlive the request.
class RequestHandle {
 public:
  RequestHandle(Driver* driver, std::shared_ptr<Driver::Ticket> ticket)
      : driver_(*driver), ticket_(std::move(ticket)) {}
  const std::string& request_id() const { return ticket_->name; }
  // The sequences are freed within a step; the sink's OnDone follows. Later calls do nothing.
  void Cancel(absl::Status reason = absl::CancelledError("cancelled by the caller")) {
    driver_.Cancel(ticket_, std::move(reason));
  }

 private:
  Driver& driver_;
  const std::shared_ptr<Driver::Ticket> ticket_;
};

// Thread-safe. Field names in errors are those of the proto messages.
class RequestService {
 public:
  // All borrowed; they must outlive the service and every request.
  RequestService(const ServedModel* model, Driver* driver, TextPool* pool);

  // Never blocks; errors reach the sink as OnDone, at once or later. Text is tokenised on the pool.
  std::shared_ptr<RequestHandle> Generate(GenerateParams params, std::shared_ptr<RequestSink> sink);
  std::shared_ptr<RequestHandle> Score(ScoreParams params, std::shared_ptr<RequestSink> sink);

  // `done` is called on the pool, or at once when the request is refused.
  void Tokenize(std::string model, std::string text, bool add_special,
                std::function<void(absl::StatusOr<std::vector<TokenId>>)> done);
  void Detokenize(std::string model, std::vector<TokenId> ids, bool skip_special,
                  std::function<void(absl::StatusOr<std::string>)> done);

  // NotFound unless `name` is empty or the served model's.
  absl::Status CheckModel(const std::string& name) const;
  const ServedModel& model() const { return model_; }
  Driver& driver() { return driver_; }

 private:
  absl::StatusOr<std::vector<TokenId>> EncodePrompt(const GenerateParams& params) const;
  absl::StatusOr<std::vector<TokenId>> EncodeText(const std::string& text, bool add_special) const;
  absl::StatusOr<std::vector<TokenId>> EncodeMessages(const ChatPrompt& chat) const;
  absl::StatusOr<GenerateTask> Prepare(GenerateParams params) const;
  absl::Status CheckBeforeText(const GenerateParams& params) const;

  const ServedModel& model_;
  Driver& driver_;
  TextPool& pool_;
  // Texts longer than this cannot fit the context, whatever they say.
  const size_t max_prompt_bytes_;
};

// 128 random bits in hex with a prefix, for request ids made by the server.
std::string NewRequestId(const std::string& prefix);

}  // namespace essor::coordinator
