// Follows a CallGrammar through one block of calls.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/output/json_scanner.h"
#include "model/chat/output/output_grammar.h"
#include "model/chat/output/python_call.h"
#include "model/chat/output/tool_schemas.h"
#include "model/chat/value.h"

namespace essor::model {

// Names, ids and keys beyond this are no names.
inline constexpr size_t kCallNameBytesMax = 256;

struct ToolCall {
  std::string id;  // empty where the syntax has none
  std::string name;
  std::string arguments;  // a JSON object
};

// One block at a time: Begin(), then Push() until it returns something else than kMore, or
// Finish(). All text since Begin() or since the last call that counted is withheld, to be taken
// back when the block turns out malformed. Works byte by byte, so that chunks cannot matter.
// Thread-compatible.
class CallParser {
 public:
  enum class Result {
    kMore,
    kEnded,      // the block is over
    kFailed,     // malformed or longer than Options::bytes_max; see TakeWithheld()
    kReasoning,  // no calls but a message of reasoning begins
    kContent,    // ... of content
  };

  struct Options {
    bool counts = true;    // false: every call is malformed; messages are followed all the same
    size_t bytes_max = 0;  // of a block
  };

  // The references must outlive the parser.
  CallParser(const CallGrammar& grammar, const ToolSchemas& tools, const Options& options)
      : grammar_(grammar), tools_(tools), options_(options) {}

  // `prefix` is the opening's marker (less what belongs to the call) and white space before it.
  void Begin(std::string prefix, const Opening& opening);
  Result Push(char c);
  // At the end of the stream: whether the block may end here.
  bool Finish();

  // The calls that count, in order, and not yet taken.
  std::vector<ToolCall> TakeCalls();

  struct Withheld {
    std::string text;
    size_t opening = 0;  // bytes of the opening in front, which opened nothing
  };
  Withheld TakeWithheld();

 private:
  const CallStep& step() const { return grammar_.steps[static_cast<size_t>(step_)]; }
  void GoTo(int step);
  Result Dispatch(char c);
  Result PushExpect(char c);
  Result PushText(char c);
  Result PushJson(char c);
  Result PushPython(char c);
  Result Follow(const CallBranch& branch);
  bool AcceptText(std::string_view text);
  bool AcceptName(std::string_view name);
  bool AcceptValue(std::string_view text);
  bool AcceptJsonCall();
  bool SetArguments(const jinja::Value& value);
  bool AddCall();
  void Commit();

  const CallGrammar& grammar_;
  const ToolSchemas& tools_;
  const Options options_;

  std::string withheld_;
  size_t opening_bytes_ = 0;
  bool bare_ = false;

  int step_ = 0;
  std::string token_;  // what the current step has read
  JsonScanner json_;
  PythonArgumentScanner python_;

  ToolCall call_;
  std::string key_;
  CallAction value_kind_ = CallAction::kNone;
  jinja::Dict arguments_;  // of syntaxes that write them one by one
  std::vector<ToolCall> added_;
  std::vector<ToolCall> counted_;
};

}  // namespace essor::model
