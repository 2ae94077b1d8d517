#include "worker/health/health_server.h"

#include <chrono>
#include <thread>
#include <utility>  // before asio: Boost 1.74 uses std::exchange without including it

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr auto kConnectionTimeout = std::chrono::seconds(5);
constexpr uint32_t kHeaderBytesMax = 8 * 1024;

absl::StatusOr<tcp::endpoint> ParseAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  boost::system::error_code error;
  asio::ip::address ip;
  if (colon != std::string::npos) ip = asio::ip::make_address(address.substr(0, colon), error);
  if (colon == std::string::npos || error || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrFormat("listen address \"%s\" is not ip:port", address));
  }
  return tcp::endpoint(ip, static_cast<uint16_t>(port));
}

class BeastHealthServer : public HealthServer {
 public:
  explicit BeastHealthServer(Content content) : content_(std::move(content)), acceptor_(io_) {}

  ~BeastHealthServer() override {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(const tcp::endpoint& endpoint) {
    boost::system::error_code error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(16, error);
    if (error) {
      return absl::UnavailableError(absl::StrFormat("cannot listen on %s:%d: %s",
                                                    endpoint.address().to_string(), endpoint.port(),
                                                    error.message()));
    }
    asio::co_spawn(io_, Accept(), asio::detached);
    thread_ = std::thread([this] { io_.run(); });
    return absl::OkStatus();
  }

  uint16_t port() const override { return acceptor_.local_endpoint().port(); }

 private:
  asio::awaitable<void> Accept() {
    while (true) {
      boost::system::error_code error;
      tcp::socket socket =
          co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted) co_return;
      if (error) continue;
      asio::co_spawn(io_, Serve(std::move(socket)), asio::detached);
    }
  }

  asio::awaitable<void> Serve(tcp::socket socket) {
    beast::tcp_stream stream(std::move(socket));
    stream.expires_after(kConnectionTimeout);
    beast::flat_buffer buffer(kHeaderBytesMax);
    http::request_parser<http::empty_body> parser;
    parser.header_limit(kHeaderBytesMax);
    boost::system::error_code error;
    co_await http::async_read(stream, buffer, parser,
                              asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    const http::response<http::string_body> response = Answer(parser.get());
    co_await http::async_write(stream, response, asio::redirect_error(asio::use_awaitable, error));
    stream.socket().shutdown(tcp::socket::shutdown_send, error);
  }

  http::response<http::string_body> Answer(const http::request<http::empty_body>& request) const {
    http::response<http::string_body> response(http::status::ok, request.version());
    response.set(http::field::content_type, "text/plain; charset=utf-8");
    response.keep_alive(false);
    if (request.method() != http::verb::get) {
      response.result(http::status::method_not_allowed);
    } else if (request.target() == "/livez") {
      response.body() = "ok\n";
    } else if (request.target() == "/readyz") {
      const bool ready = content_.ready();
      if (!ready) response.result(http::status::service_unavailable);
      response.body() = ready ? "ok\n" : "not ready\n";
    } else if (request.target() == "/metrics") {
      response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
      response.body() = content_.metrics();
    } else {
      response.result(http::status::not_found);
    }
    response.prepare_payload();
    return response;
  }

  const Content content_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Start(const std::string& address,
                                                                  Content content) {
  ESSOR_ASSIGN_OR_RETURN(const tcp::endpoint endpoint, ParseAddress(address));
  auto server = std::make_unique<BeastHealthServer>(std::move(content));
  ESSOR_RETURN_IF_ERROR(server->Listen(endpoint));
  return server;
}

}  // namespace essor::worker
