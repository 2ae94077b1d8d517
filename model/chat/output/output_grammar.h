// The rules of a syntax as data, followed byte by byte by CallParser and OutputParser.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "model/chat/output/output_syntax.h"

namespace essor::model {

// Every marker is at most this long; so much of a malformed call is looked at again.
inline constexpr size_t kMarkerBytesMax = 64;

enum class CallOp {
  kExpect,           // white space, then one of the branches' markers
  kName,             // the function's name, up to one of the markers
  kId,               // the call's id, up to one of the markers
  kNamedId,          // an id that holds the name: functions.NAME:INDEX
  kKey,              // a parameter's name, up to one of the markers
  kValue,            // its value, any text up to one of the markers
  kJsonArguments,    // a JSON object: the arguments
  kJsonCall,         // a JSON object of name, arguments or parameters, id, type; no other key
  kPythonArguments,  // keyword arguments up to their closing parenthesis
};

enum class CallAction {
  kNone,
  kTextValue,       // the value that follows is a string
  kJsonValue,       // the value that follows is JSON
  kAddCall,         // the call is whole, but counts only with a later kCommit
  kCommit,          // the calls added so far count
  kCallEnds,        // both
  kBeginReasoning,  // no call: a message of reasoning begins
  kBeginContent,    // no call: a message of content begins
};

inline constexpr int kBlockEnds = -1;

struct CallBranch {
  std::string_view marker;  // empty for the JSON and Python operations, which end by themselves
  int next = kBlockEnds;    // index of the step that follows
  CallAction action = CallAction::kNone;
};

struct CallStep {
  CallOp op;
  std::vector<CallBranch> branches = {};
  // The answer may end here (its last marker is a token that ends generation and is not in the
  // text); the calls added so far count then.
  bool may_end = false;
  // kExpect: the step that reads on when no branch's marker begins here; kBlockEnds for none.
  int otherwise = kBlockEnds;
};

// Where a block of calls (or a message) begins.
struct Opening {
  std::string_view marker;
  int step = 0;
  // Without a marker of its own: counts only where the answer begins, and where the request has
  // tools only for one of them.
  bool bare = false;
  // The marker is the first byte of what `step` reads.
  bool part_of_call = false;
};

struct CallGrammar {
  std::vector<Opening> openings = {};
  std::vector<CallStep> steps = {};
  // What ends a message that kBeginReasoning or kBeginContent began.
  std::vector<std::string_view> message_ends = {};
  // One line break on each side of a value belongs to the syntax.
  bool value_on_own_lines = false;
};

struct ReasoningMarkers {
  std::string_view open;
  std::string_view close;
};

// Lives for ever.
const CallGrammar& GrammarOf(CallSyntax syntax);
// Empty markers for kNone.
ReasoningMarkers MarkersOf(ReasoningSyntax syntax);

}  // namespace essor::model
