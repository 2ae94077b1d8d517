// Boost's networking with coroutines, included in one way everywhere: Boost 1.74 needs <utility>
// first under C++20 (std::exchange), and clang 14 needs essor_use_coroutines (EssorTargets.cmake).
#pragma once

#include <utility>

#include "boost/asio.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"

namespace essor::coordinator {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = net::ip::tcp;

}  // namespace essor::coordinator
