// One client connection: reads requests one after the other and answers them.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "coordinator/http/asio.h"
#include "coordinator/http/completion_call.h"
#include "coordinator/http/http_server.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/openai_response.h"

namespace essor::coordinator {

// What all connections of a server share. Borrowed pointers outlive the server.
struct HttpShared {
  HttpServer::Options options;
  RequestService* service = nullptr;
  CoordinatorMetrics* metrics = nullptr;
  std::shared_ptr<net::io_context> context;
  std::atomic<size_t> num_connections{0};
  std::atomic<size_t> num_calls{0};  // completions under way
};

// Lives on its socket's executor (a strand) only.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, std::shared_ptr<HttpShared> shared);
  ~Connection();

  // Until the client or an error ends the connection.
  net::awaitable<void> Run();

 private:
  using Request = http::request<http::string_body>;

  // False when the connection is over.
  net::awaitable<bool> ReadRequest(Request* request);
  net::awaitable<void> RefuseUnreadable(boost::system::error_code error);
  net::awaitable<bool> Handle(const Request& request);
  net::awaitable<bool> HandleCompletion(const Request& request, bool chat);
  net::awaitable<bool> HandleTokenize(const Request& request);
  net::awaitable<bool> HandleDetokenize(const Request& request);
  // Whole answers.
  net::awaitable<bool> AnswerWhole(const CompletionRequest& parsed, const CompletionHead& head,
                                   CompletionCall* call);
  // Server-sent events.
  net::awaitable<bool> AnswerStreamed(const CompletionRequest& parsed, const CompletionHead& head,
                                      CompletionCall* call);
  HttpReply Get(const std::string& path) const;
  HttpReply Readiness() const;

  net::awaitable<bool> Write(HttpReply reply);
  net::awaitable<bool> WriteStreamHeader();
  net::awaitable<bool> WriteStreamChunk(std::string data);
  net::awaitable<bool> WriteStreamEnd();
  net::awaitable<void> DiscardInput();

  const std::shared_ptr<HttpShared> shared_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  // Of the request being answered.
  std::string request_id_;
  unsigned version_ = 11;
  bool keep_alive_ = false;
};

}  // namespace essor::coordinator
