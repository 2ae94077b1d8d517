// A minimal HTTP client for tests: what is sent is exactly what the test wrote.
#pragma once

#include <string>
#include <string_view>

namespace essor::coordinator {

struct HttpAnswer {
  int status = 0;        // 0: the connection ended without an answer
  std::string header;    // all of it
  std::string body;      // chunks joined
  bool complete = true;  // the body ended as its header said

  // Value of a header field, "" without.
  std::string Field(const std::string& name) const;
};

// One connection. Not thread-safe.
class RawHttp {
 public:
  explicit RawHttp(const std::string& address);  // host:port
  ~RawHttp();
  void Send(std::string_view bytes);
  // Reads what has come until `text` appears in it; false when the connection ends before.
  bool ReadUntil(const std::string& text);
  // Reads one answer.
  HttpAnswer Read();
  void Close();

 private:
  bool Fill();
  int fd_ = -1;
  std::string buffer_;
};

// One request on a connection of its own.
HttpAnswer Fetch(const std::string& address, const std::string& method, const std::string& path,
                 const std::string& body = "", const std::string& extra_header = "");

}  // namespace essor::coordinator
