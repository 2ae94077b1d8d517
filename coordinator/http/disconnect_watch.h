// Notices that a client hung up while its answer is being computed.
#pragma once

#include <poll.h>

#include <chrono>
#include <functional>
#include <memory>

#include "coordinator/http/asio.h"

namespace essor::coordinator {

// Watches the socket without reading from it, so that a request that was sent ahead stays where it
// is. All calls on the socket's executor; `socket` must live until Stop().
class DisconnectWatch : public std::enable_shared_from_this<DisconnectWatch> {
 public:
  DisconnectWatch(tcp::socket* socket, std::function<void()> on_disconnect)
      : socket_(*socket),
        timer_(socket->get_executor()),
        on_disconnect_(std::move(on_disconnect)) {}

  void Start() {
    socket_.async_wait(tcp::socket::wait_read,
                       [self = shared_from_this()](boost::system::error_code) {
                         if (!self->stopped_) self->Check();
                       });
  }

  void Stop() {
    if (stopped_) return;
    stopped_ = true;
    timer_.cancel();
    boost::system::error_code ignored;
    socket_.cancel(ignored);  // nothing else is pending on it
  }

 private:
  void Check() {
    pollfd state{.fd = socket_.native_handle(), .events = POLLRDHUP, .revents = 0};
    const bool gone = ::poll(&state, 1, 0) > 0 &&
                      (state.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
    if (gone) {
      stopped_ = true;
      on_disconnect_();
      return;
    }
    // Readable but not closed: the next request waits there. Look again in a while.
    timer_.expires_after(std::chrono::milliseconds(200));
    timer_.async_wait([self = shared_from_this()](boost::system::error_code) {
      if (!self->stopped_) self->Start();
    });
  }

  tcp::socket& socket_;
  net::steady_timer timer_;
  const std::function<void()> on_disconnect_;
  bool stopped_ = false;
};

}  // namespace essor::coordinator
