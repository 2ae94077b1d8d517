// Deltas put together again, for tests and fuzzing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/chat/output/output_parser.h"

namespace essor::model {

// Neighbouring texts of one kind, and the parts of one call's arguments, become one delta.
inline void MergeDeltas(std::vector<OutputDelta> deltas, std::vector<OutputDelta>* merged) {
  for (OutputDelta& delta : deltas) {
    const bool joins = !merged->empty() && merged->back().kind == delta.kind &&
                       delta.kind != OutputDelta::Kind::kCallBegin &&
                       delta.kind != OutputDelta::Kind::kCallEnd &&
                       merged->back().call_index == delta.call_index;
    if (joins) {
      merged->back().text += delta.text;
    } else {
      merged->push_back(std::move(delta));
    }
  }
}

// One line of a readable form: R(reasoning) C(content) F(id|name|arguments).
inline std::string DescribeDeltas(const std::vector<OutputDelta>& merged) {
  std::string out;
  for (const OutputDelta& delta : merged) {
    switch (delta.kind) {
      case OutputDelta::Kind::kReasoning:
        out += "R(" + delta.text + ")";
        break;
      case OutputDelta::Kind::kContent:
        out += "C(" + delta.text + ")";
        break;
      case OutputDelta::Kind::kCallBegin:
        out += "F" + std::to_string(delta.call_index) + "(" + delta.call_id + "|" +
               delta.call_name + "|";
        break;
      case OutputDelta::Kind::kCallArguments:
        out += delta.text;
        break;
      case OutputDelta::Kind::kCallEnd:
        out += ")";
        break;
    }
  }
  return out;
}

}  // namespace essor::model
