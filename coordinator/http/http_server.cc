#include "coordinator/http/http_server.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/host_port.h"
#include "common/status_macros.h"
#include "coordinator/http/connection.h"
#include "coordinator/service/grpc_server.h"

namespace essor::coordinator {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
constexpr std::chrono::milliseconds kAcceptPause{100};

class BeastServer final : public HttpServer {
 public:
  BeastServer(const Options& options, RequestService* service, CoordinatorMetrics* metrics)
      : shared_(std::make_shared<HttpShared>()), acceptor_(*NewContext()) {
    shared_->options = options;
    shared_->service = service;
    shared_->metrics = metrics;
  }
  ~BeastServer() override { Shutdown(); }

  absl::Status Listen();
  const std::string& address() const override { return address_; }
  void Shutdown() override;

 private:
  net::io_context* NewContext() {
    shared_->context = std::make_shared<net::io_context>();
    return shared_->context.get();
  }
  net::awaitable<void> Accept();

  const std::shared_ptr<HttpShared> shared_;
  tcp::acceptor acceptor_;
  std::string address_;
  std::vector<std::thread> threads_;
};

absl::Status BeastServer::Listen() {
  const std::string& wanted = shared_->options.address;
  ESSOR_ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(wanted));
  boost::system::error_code error;
  tcp::resolver resolver(*shared_->context);
  const auto found =
      resolver.resolve(parsed.host, absl::StrCat(parsed.port), tcp::resolver::passive, error);
  if (!error && !found.empty()) {
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    // Lets a restarted server have its port back; never shares it with a living one.
    if (!error) acceptor_.set_option(net::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(net::socket_base::max_listen_connections, error);
  }
  if (error || found.empty()) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", wanted, ": ", error.message()));
  }
  const bool v6 = parsed.host.find(':') != std::string::npos;
  address_ = absl::StrCat(v6 ? "[" : "", parsed.host, v6 ? "]" : "", ":",
                          acceptor_.local_endpoint().port());
  net::co_spawn(*shared_->context, Accept(), net::detached);
  for (int i = 0; i < std::max(shared_->options.num_threads, 1); ++i) {
    threads_.emplace_back([context = shared_->context] { context->run(); });
  }
  return absl::OkStatus();
}

net::awaitable<void> BeastServer::Accept() {
  net::steady_timer pause(*shared_->context);
  while (acceptor_.is_open()) {
    boost::system::error_code error;
    tcp::socket socket(net::make_strand(*shared_->context));
    co_await acceptor_.async_accept(socket, net::redirect_error(net::use_awaitable, error));
    if (error == net::error::operation_aborted) co_return;
    if (error) {  // too many open files, most likely: others may close some
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(net::redirect_error(net::use_awaitable, error));
      continue;
    }
    if (shared_->num_connections >= shared_->options.max_connections) continue;  // closes it
    const net::any_io_executor executor = socket.get_executor();
    const auto connection = std::make_shared<Connection>(std::move(socket), shared_);
    net::co_spawn(
        executor, [connection]() { return connection->Run(); }, net::detached);
  }
}

void BeastServer::Shutdown() {
  if (threads_.empty()) return;
  net::post(*shared_->context, [this] {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
  });
  // Streams get to write how they ended.
  const absl::Time end = absl::Now() + kShutdownGrace;
  while (shared_->num_calls > 0 && absl::Now() < end) absl::SleepFor(absl::Milliseconds(5));
  shared_->context->stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options,
                                                              RequestService* service,
                                                              CoordinatorMetrics* metrics) {
  auto server = std::make_unique<BeastServer>(options, service, metrics);
  ESSOR_RETURN_IF_ERROR(server->Listen());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace essor::coordinator
