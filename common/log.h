// Logging: one line per event on stderr, through spdlog. Text by default, JSON objects with
// InitLogging({.json = true}). Include this header instead of spdlog's.
//
//   spdlog::info("weights loaded epoch={} rank={} bytes={}", epoch, rank, bytes);
//
// Prompts, outputs and secrets are never logged. Text from outside goes through LogSafe().
#pragma once

#include <string>
#include <string_view>

#include "spdlog/spdlog.h"

namespace essor {

struct LogOptions {
  std::string process;         // "coordinator", "worker": part of every line
  bool json = false;           // one JSON object per line
  std::string level = "info";  // trace, debug, info, warn, error
};

// Call once, before other threads start. Logs always go to stderr: stdout carries results only.
void InitLogging(const LogOptions& options);

// `text` with control characters, quotes and backslashes escaped and at most `limit` bytes kept, so
// that neither a newline nor a quote from outside can forge a line.
std::string LogSafe(std::string_view text, size_t limit = 256);

}  // namespace essor
