#include "coordinator/http/connection.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "common/log.h"
#include "common/version.h"
#include "coordinator/http/completion_answer.h"
#include "coordinator/http/disconnect_watch.h"
#include "coordinator/http/openapi.h"

namespace essor::coordinator {
namespace {

constexpr uint32_t kMaxHeaderBytes = 32 << 10;
// After a refusal: what the client may still be sending, so that it gets to read the answer.
constexpr size_t kMaxDiscardedBytes = 4 << 20;
constexpr std::chrono::seconds kDiscardTime{2};

std::string ToString(beast::string_view text) { return std::string(text.data(), text.size()); }

std::string PathOf(beast::string_view target) {
  const std::string path = ToString(target.substr(0, target.find('?')));
  std::string decoded;
  const auto hex = [](char c) {
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
  };
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '%' && i + 2 < path.size() && hex(path[i + 1]) >= 0 && hex(path[i + 2]) >= 0) {
      decoded.push_back(static_cast<char>(hex(path[i + 1]) * 16 + hex(path[i + 2])));
      i += 2;
    } else {
      decoded.push_back(path[i]);
    }
  }
  return decoded;
}

constexpr char kModelPrefix[] = "/v1/models/";

// The method of each path; empty for an unknown one.
std::string MethodOf(const std::string& path) {
  static const auto* const kMethods = new std::map<std::string, std::string>{
      {"/v1/models", "GET"},    {"/livez", "GET"},
      {"/readyz", "GET"},       {"/health", "GET"},
      {"/metrics", "GET"},      {"/version", "GET"},
      {"/openapi.json", "GET"}, {"/v1/completions", "POST"},
      {"/tokenize", "POST"},    {"/v1/chat/completions", "POST"},
      {"/detokenize", "POST"}};
  const auto found = kMethods->find(path);
  if (found != kMethods->end()) return found->second;
  return path.rfind(kModelPrefix, 0) == 0 ? "GET" : "";
}

// Counts a completion under way for as long as it lives.
class CallCount {
 public:
  explicit CallCount(std::atomic<size_t>* count) : count_(*count) { count_.fetch_add(1); }
  ~CallCount() { count_.fetch_sub(1); }
  CallCount(const CallCount&) = delete;

 private:
  std::atomic<size_t>& count_;
};

}  // namespace

Connection::Connection(tcp::socket socket, std::shared_ptr<HttpShared> shared)
    : shared_(std::move(shared)), stream_(std::move(socket)) {
  shared_->num_connections.fetch_add(1);
}

Connection::~Connection() { shared_->num_connections.fetch_sub(1); }

net::awaitable<void> Connection::Run() {
  const auto self = shared_from_this();
  boost::system::error_code ignored;
  stream_.socket().set_option(tcp::no_delay(true), ignored);
  while (true) {
    Request request;
    const bool arrived = co_await ReadRequest(&request);
    if (!arrived) break;
    const bool goes_on = co_await Handle(request);
    if (!goes_on) break;
  }
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
}

net::awaitable<bool> Connection::ReadRequest(Request* request) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(shared_->options.max_body_bytes);
  stream_.expires_after(absl::ToChronoMilliseconds(shared_->options.request_timeout));
  boost::system::error_code error;
  co_await http::async_read_header(stream_, buffer_, parser,
                                   net::redirect_error(net::use_awaitable, error));
  if (!error) {
    const auto& header = parser.get();
    request_id_ = ToString(header["x-request-id"]);
    if (request_id_.empty() || !ValidateRequestId(request_id_).ok()) {
      request_id_ = NewRequestId("req-");
    }
    version_ = header.version();
    keep_alive_ = header.keep_alive();
    if (absl::EqualsIgnoreCase(ToString(header[http::field::expect]), "100-continue")) {
      const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await net::async_write(stream_, net::buffer(go_on),
                                net::redirect_error(net::use_awaitable, error));
    }
  } else {
    request_id_ = NewRequestId("req-");
    keep_alive_ = false;
  }
  if (!error) {
    co_await http::async_read(stream_, buffer_, parser,
                              net::redirect_error(net::use_awaitable, error));
  }
  if (error) {
    const bool silent = error == http::error::end_of_stream || error == net::error::eof ||
                        (error == beast::error::timeout && !parser.got_some());
    if (!silent) co_await RefuseUnreadable(error);
    co_return false;
  }
  *request = parser.release();
  co_return true;
}

net::awaitable<void> Connection::RefuseUnreadable(boost::system::error_code error) {
  keep_alive_ = false;
  HttpReply reply;
  if (error == http::error::body_limit) {
    reply = ProtocolErrorReply(
        413, absl::StrCat("the body is larger than ", shared_->options.max_body_bytes, " bytes"));
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    reply = ProtocolErrorReply(431, "the header is too large");
  } else if (error == beast::error::timeout) {
    reply = ProtocolErrorReply(408, "the request did not arrive in time");
  } else if (error.category() == http::make_error_code(http::error::bad_method).category()) {
    reply = ProtocolErrorReply(400, "the request is not valid HTTP");
  } else {
    co_return;  // the connection broke
  }
  co_await Write(std::move(reply));
  co_await DiscardInput();
}

net::awaitable<void> Connection::DiscardInput() {
  boost::system::error_code error;
  stream_.socket().shutdown(tcp::socket::shutdown_send, error);
  stream_.expires_after(kDiscardTime);
  std::vector<char> sink(64 << 10);
  size_t total = 0;
  while (!error && total < kMaxDiscardedBytes) {
    total += co_await stream_.async_read_some(net::buffer(sink),
                                              net::redirect_error(net::use_awaitable, error));
  }
}

net::awaitable<bool> Connection::Handle(const Request& request) {
  const std::string path = PathOf(request.target());
  const std::string method = MethodOf(path);
  if (method.empty()) {
    HttpReply reply = ProtocolErrorReply(404, absl::StrCat("no such path: ", LogSafe(path, 128)));
    co_return co_await Write(std::move(reply));
  }
  if (ToString(request.method_string()) != method) {
    HttpReply reply = ProtocolErrorReply(405, absl::StrCat(path, " takes ", method));
    reply.headers.emplace_back("Allow", method);
    co_return co_await Write(std::move(reply));
  }
  if (method == "GET") {
    HttpReply reply = Get(path);
    co_return co_await Write(std::move(reply));
  }
  const std::string encoding = ToString(request[http::field::content_encoding]);
  if (!encoding.empty() && !absl::EqualsIgnoreCase(encoding, "identity")) {
    HttpReply reply = ProtocolErrorReply(415, "compressed bodies are not accepted");
    co_return co_await Write(std::move(reply));
  }
  const std::string type = ToString(request[http::field::content_type]);
  if (!type.empty() && !absl::StrContains(absl::AsciiStrToLower(type), "json")) {
    HttpReply reply = ProtocolErrorReply(400, "content-type must be application/json");
    co_return co_await Write(std::move(reply));
  }
  if (path == "/tokenize") co_return co_await HandleTokenize(request);
  if (path == "/detokenize") co_return co_await HandleDetokenize(request);
  co_return co_await HandleCompletion(request, path == "/v1/chat/completions");
}

HttpReply Connection::Readiness() const {
  const Driver& driver = shared_->service->driver();
  if (driver.Ready()) return {.content_type = "text/plain", .body = "ready\n"};
  return {.status = 503,
          .content_type = "text/plain",
          .body = driver.ReadyDetail() + "\n",
          .headers = {{"Retry-After", "1"}}};
}

HttpReply Connection::Get(const std::string& path) const {
  const ServedModel& model = shared_->service->model();
  if (path == "/livez") return {.content_type = "text/plain", .body = "alive\n"};
  if (path == "/readyz" || path == "/health") return Readiness();
  if (path == "/metrics") {
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
            .body = shared_->metrics->Render()};
  }
  if (path == "/version") return {.body = VersionBody(Version(), BuildId())};
  if (path == "/openapi.json") return {.body = OpenApiDocument()};
  if (path == "/v1/models") return {.body = ModelListBody(model)};
  const absl::Status known = shared_->service->CheckModel(path.substr(sizeof(kModelPrefix) - 1));
  return known.ok() ? HttpReply{.body = ModelBody(model)} : ErrorReply(known);
}

net::awaitable<bool> Connection::HandleTokenize(const Request& request) {
  const absl::StatusOr<TokenizeBody> body = ParseTokenize(request.body());
  if (!body.ok()) {
    HttpReply reply = ErrorReply(body.status());
    co_return co_await Write(std::move(reply));
  }
  // The result is put where the coroutine finds it after its wake-up.
  struct Result {
    explicit Result(const net::any_io_executor& executor) : wake(executor) {}
    net::steady_timer wake;
    std::optional<absl::StatusOr<std::vector<TokenId>>> ids;
  };
  const net::any_io_executor executor = stream_.get_executor();
  const auto result = std::make_shared<Result>(executor);
  result->wake.expires_at(std::chrono::steady_clock::time_point::max());
  shared_->service->Tokenize(
      body->model, body->prompt, body->add_special_tokens,
      [result, executor, context = shared_->context](absl::StatusOr<std::vector<TokenId>> ids) {
        net::post(executor, [result, ids = std::move(ids)]() mutable {
          result->ids = std::move(ids);
          result->wake.cancel();
        });
      });
  boost::system::error_code ignored;
  while (!result->ids.has_value()) {
    co_await result->wake.async_wait(net::redirect_error(net::use_awaitable, ignored));
  }
  if (!result->ids->ok()) {
    HttpReply reply = ErrorReply(result->ids->status());
    co_return co_await Write(std::move(reply));
  }
  HttpReply reply{
      .body = TokensBody(**result->ids, shared_->service->model().limits.max_context_tokens)};
  co_return co_await Write(std::move(reply));
}

net::awaitable<bool> Connection::HandleDetokenize(const Request& request) {
  const absl::StatusOr<DetokenizeBody> body = ParseDetokenize(request.body());
  if (!body.ok()) {
    HttpReply reply = ErrorReply(body.status());
    co_return co_await Write(std::move(reply));
  }
  struct Result {
    explicit Result(const net::any_io_executor& executor) : wake(executor) {}
    net::steady_timer wake;
    std::optional<absl::StatusOr<std::string>> text;
  };
  const net::any_io_executor executor = stream_.get_executor();
  const auto result = std::make_shared<Result>(executor);
  result->wake.expires_at(std::chrono::steady_clock::time_point::max());
  shared_->service->Detokenize(
      body->model, body->tokens, /*skip_special=*/false,
      [result, executor, context = shared_->context](absl::StatusOr<std::string> text) {
        net::post(executor, [result, text = std::move(text)]() mutable {
          result->text = std::move(text);
          result->wake.cancel();
        });
      });
  boost::system::error_code ignored;
  while (!result->text.has_value()) {
    co_await result->wake.async_wait(net::redirect_error(net::use_awaitable, ignored));
  }
  if (!result->text->ok()) {
    HttpReply reply = ErrorReply(result->text->status());
    co_return co_await Write(std::move(reply));
  }
  HttpReply reply{.body = PromptBody(**result->text)};
  co_return co_await Write(std::move(reply));
}

net::awaitable<bool> Connection::HandleCompletion(const Request& request, bool chat) {
  absl::StatusOr<CompletionRequest> parsed =
      chat ? ParseChatCompletion(request.body()) : ParseCompletion(request.body());
  if (!parsed.ok()) {
    HttpReply reply = ErrorReply(parsed.status());
    co_return co_await Write(std::move(reply));
  }
  const CallCount count(&shared_->num_calls);
  const ServedModel& model = shared_->service->model();
  const CompletionHead head{.chat = chat,
                            .id = NewRequestId(chat ? "chatcmpl-" : "cmpl-"),
                            .model = model.name,
                            .created_unix_s = absl::ToUnixSeconds(absl::Now()),
                            .tokenizer = model.tokenizer};
  std::vector<GenerateParams> prompts = std::exchange(parsed->prompts, {});
  parsed->prompts.resize(prompts.size());  // their number is still needed
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].request_id = prompts.size() == 1 ? head.id : absl::StrCat(head.id, "-", i);
    prompts[i].service.tenant = ToString(request["x-essor-tenant"]);
  }
  const size_t max_unread = parsed->stream ? shared_->options.max_unread_bytes : SIZE_MAX;
  const auto call =
      std::make_shared<CompletionCall>(shared_->context, stream_.get_executor(), max_unread);
  const auto watch =
      std::make_shared<DisconnectWatch>(&stream_.socket(), [call] { call->Disconnect(); });
  watch->Start();
  call->Start(shared_->service, std::move(prompts));
  bool goes_on = false;
  if (parsed->stream) {
    goes_on = co_await AnswerStreamed(*parsed, head, call.get());
  } else {
    goes_on = co_await AnswerWhole(*parsed, head, call.get());
  }
  watch->Stop();
  call->Cancel(absl::CancelledError("the answer has ended"));
  co_return goes_on;
}

net::awaitable<bool> Connection::AnswerWhole(const CompletionRequest& parsed,
                                             const CompletionHead& head, CompletionCall* call) {
  const size_t num_prompts = parsed.prompts.size();
  std::vector<Choice> choices(num_prompts * parsed.n);
  AnswerUsage usage(num_prompts);
  size_t num_done = 0;
  while (num_done < num_prompts) {
    const std::vector<CompletionCall::Item> items = co_await call->Pop();
    for (const CompletionCall::Item& item : items) {
      if (item.done.has_value()) {
        ++num_done;
        if (absl::IsCancelled(*item.done)) co_return false;
        if (!item.done->ok()) {
          HttpReply reply = ErrorReply(*item.done, parsed.names);
          co_return co_await Write(std::move(reply));
        }
        continue;
      }
      usage.Count(item);
      for (auto& [choice, part] : PartsOf(item, parsed)) Append(std::move(part), &choices[choice]);
    }
  }
  HttpReply reply{.body = CompletionBody(head, choices, usage.Total(), parsed.answer)};
  co_return co_await Write(std::move(reply));
}

net::awaitable<bool> Connection::AnswerStreamed(const CompletionRequest& parsed,
                                                const CompletionHead& head, CompletionCall* call) {
  const AnswerOptions& options = parsed.answer;
  const size_t num_prompts = parsed.prompts.size();
  std::vector<bool> begun(num_prompts * parsed.n, false);
  std::vector<size_t> text_offsets(num_prompts * parsed.n, 0);
  AnswerUsage usage(num_prompts);
  bool header_written = false;
  size_t num_done = 0;
  while (num_done < num_prompts) {
    const std::vector<CompletionCall::Item> items = co_await call->Pop();
    std::string data;
    absl::Status failure;
    for (const CompletionCall::Item& item : items) {
      if (item.done.has_value()) {
        ++num_done;
        failure = *item.done;
        if (!failure.ok()) break;
        continue;
      }
      usage.Count(item);
      for (auto& [choice, part] : PartsOf(item, parsed)) {
        if (head.chat && !begun[choice]) data += RoleEvent(head, choice, options);
        begun[choice] = true;
        part.text_offset = text_offsets[choice];
        text_offsets[choice] += NumCharacters(part.logprobs, head.tokenizer);
        data += ChunkEvent(head, choice, part, options);
      }
    }
    if (absl::IsCancelled(failure)) co_return false;
    if (!failure.ok() && !header_written && data.empty()) {
      HttpReply reply = ErrorReply(failure, parsed.names);
      co_return co_await Write(std::move(reply));
    }
    // A stream that fails says so and never looks whole: no [DONE].
    if (!failure.ok()) data += ErrorEvent(ErrorBody(failure, parsed.names));
    const bool whole = failure.ok() && num_done == num_prompts;
    if (whole) {
      if (options.include_usage) data += UsageEvent(head, usage.Total());
      data += kDoneEvent;
    }
    if (!header_written) {
      const bool written = co_await WriteStreamHeader();
      if (!written) co_return false;
      header_written = true;
    }
    const bool written = co_await WriteStreamChunk(std::move(data));
    if (!written) co_return false;
    if (!failure.ok()) keep_alive_ = false;
    if (!failure.ok()) break;
  }
  co_return co_await WriteStreamEnd();
}

// Callers name their reply before they wait: g++ 12 destroys temporaries of aggregate type in the
// expression of a co_await twice.
net::awaitable<bool> Connection::Write(HttpReply reply) {
  http::response<http::string_body> response;
  response.version(version_);
  response.result(reply.status);
  response.set(http::field::content_type, reply.content_type);
  response.set("x-request-id", request_id_);
  for (const auto& [name, value] : reply.headers) response.set(name, value);
  response.keep_alive(keep_alive_);
  response.body() = std::move(reply.body);
  response.prepare_payload();
  stream_.expires_after(absl::ToChronoMilliseconds(shared_->options.write_timeout));
  boost::system::error_code error;
  co_await http::async_write(stream_, response, net::redirect_error(net::use_awaitable, error));
  co_return !error && keep_alive_;
}

net::awaitable<bool> Connection::WriteStreamHeader() {
  http::response<http::empty_body> response;
  response.version(version_);
  response.result(http::status::ok);
  response.set(http::field::content_type, "text/event-stream; charset=utf-8");
  response.set(http::field::cache_control, "no-cache");
  response.set("x-request-id", request_id_);
  // HTTP/1.0 has no chunks: the end of the connection ends the stream.
  if (version_ < 11) keep_alive_ = false;
  response.keep_alive(keep_alive_);
  if (version_ >= 11) response.chunked(true);
  http::response_serializer<http::empty_body> serializer(response);
  stream_.expires_after(absl::ToChronoMilliseconds(shared_->options.write_timeout));
  boost::system::error_code error;
  co_await http::async_write_header(stream_, serializer,
                                    net::redirect_error(net::use_awaitable, error));
  co_return !error;
}

net::awaitable<bool> Connection::WriteStreamChunk(std::string data) {
  if (data.empty()) co_return true;
  if (version_ >= 11) {
    data = absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n");
  }
  stream_.expires_after(absl::ToChronoMilliseconds(shared_->options.write_timeout));
  boost::system::error_code error;
  co_await net::async_write(stream_, net::buffer(data),
                            net::redirect_error(net::use_awaitable, error));
  co_return !error;
}

net::awaitable<bool> Connection::WriteStreamEnd() {
  if (version_ < 11) co_return false;
  const std::string last = "0\r\n\r\n";
  boost::system::error_code error;
  co_await net::async_write(stream_, net::buffer(last),
                            net::redirect_error(net::use_awaitable, error));
  co_return !error && keep_alive_;
}

}  // namespace essor::coordinator
