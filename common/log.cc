#include "common/log.h"

#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace essor {
namespace {

// Escapes each message before the pattern adds the JSON frame around it: spdlog's %v does not.
class EscapingStderrSink : public spdlog::sinks::stderr_sink_mt {
 public:
  void log(const spdlog::details::log_msg& message) override {
    const std::string escaped =
        LogSafe(std::string_view(message.payload.data(), message.payload.size()), 8192);
    spdlog::details::log_msg copy = message;
    copy.payload = spdlog::string_view_t(escaped.data(), escaped.size());
    spdlog::sinks::stderr_sink_mt::log(copy);
  }
};

}  // namespace

void InitLogging(const LogOptions& options) {
  std::shared_ptr<spdlog::sinks::sink> sink;
  if (options.json) {
    sink = std::make_shared<EscapingStderrSink>();
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  auto logger = std::make_shared<spdlog::logger>(options.process, std::move(sink));
  logger->set_pattern(
      options.json
          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","process":"%n","pid":%P,"message":"%v"})"
          : "%Y-%m-%dT%H:%M:%S.%e %l %n[%P] %v");
  logger->set_level(spdlog::level::from_str(options.level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

std::string LogSafe(std::string_view text, size_t limit) {
  const bool cut = text.size() > limit;
  std::string escaped = absl::Utf8SafeCEscape(std::string(cut ? text.substr(0, limit) : text));
  if (cut) absl::StrAppend(&escaped, "...");
  return escaped;
}

}  // namespace essor
