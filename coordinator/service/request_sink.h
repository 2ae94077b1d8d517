// Where the answers to one request go.
#pragma once

#include "absl/status/status.h"
#include "coordinator/core/request.h"

namespace essor::coordinator {

// Called by one thread at a time, in order, and must not block: it is called between two steps. A
// generate request gets OnPrompt, if it asks for what that tells, and then OnTokens; a score
// request OnScores; OnDone comes exactly once and last.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void OnPrompt(PromptOutput) {}
  virtual void OnTokens(TokenOutput) {}
  virtual void OnScores(ScoreOutput) {}
  virtual void OnDone(absl::Status status) = 0;
};

}  // namespace essor::coordinator
