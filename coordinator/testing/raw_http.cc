#include "coordinator/testing/raw_http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace essor::coordinator {

std::string HttpAnswer::Field(const std::string& name) const {
  const std::string lower = absl::AsciiStrToLower(header);
  const std::string key = absl::StrCat("\r\n", absl::AsciiStrToLower(name), ": ");
  const size_t begin = lower.find(key);
  if (begin == std::string::npos) return "";
  const size_t value = begin + key.size();
  return header.substr(value, header.find("\r\n", value) - value);
}

RawHttp::RawHttp(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &peer.sin_addr);
  fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
  timeval limit{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) != 0) Close();
}

RawHttp::~RawHttp() { Close(); }

void RawHttp::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void RawHttp::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool RawHttp::Fill() {
  char chunk[16384];
  const ssize_t got = fd_ < 0 ? 0 : ::recv(fd_, chunk, sizeof(chunk), 0);
  if (got <= 0) return false;
  buffer_.append(chunk, static_cast<size_t>(got));
  return true;
}

bool RawHttp::ReadUntil(const std::string& text) {
  while (buffer_.find(text) == std::string::npos) {
    if (!Fill()) return false;
  }
  return true;
}

HttpAnswer RawHttp::Read() {
  HttpAnswer answer;
  if (!ReadUntil("\r\n\r\n")) return answer;
  const size_t end = buffer_.find("\r\n\r\n");
  answer.header = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  answer.status = std::atoi(answer.header.c_str() + sizeof("HTTP/1.1"));
  if (answer.Field("Transfer-Encoding") == "chunked") {
    while (true) {
      if (!ReadUntil("\r\n")) break;
      const size_t size = std::strtoul(buffer_.c_str(), nullptr, 16);
      buffer_.erase(0, buffer_.find("\r\n") + 2);
      while (buffer_.size() < size + 2 && Fill()) {
      }
      answer.complete = buffer_.size() >= size + 2;
      answer.body += buffer_.substr(0, size);
      buffer_.erase(0, size + 2);
      if (size == 0 || !answer.complete) return answer;
    }
    answer.complete = false;
    return answer;
  }
  const std::string length = answer.Field("Content-Length");
  const size_t size = length.empty() ? SIZE_MAX : std::strtoul(length.c_str(), nullptr, 10);
  while (buffer_.size() < size && Fill()) {
  }
  answer.complete = length.empty() || buffer_.size() >= size;
  answer.body = buffer_.substr(0, size);
  buffer_.erase(0, answer.body.size());
  return answer;
}

HttpAnswer Fetch(const std::string& address, const std::string& method, const std::string& path,
                 const std::string& body, const std::string& extra_header) {
  RawHttp connection(address);
  std::string request = absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: test\r\n",
                                     "Connection: close\r\n", extra_header);
  if (!body.empty()) {
    absl::StrAppend(&request, "Content-Type: application/json\r\nContent-Length: ", body.size(),
                    "\r\n");
  }
  connection.Send(absl::StrCat(request, "\r\n", body));
  return connection.Read();
}

}  // namespace essor::coordinator
