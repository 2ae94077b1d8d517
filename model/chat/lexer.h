// Turns template source into tokens, with Jinja's white-space control as transformers sets it:
// trim_blocks and lstrip_blocks on, one newline at the end of the source dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

enum class TokenKind {
  kText,         // template data
  kOutputBegin,  // {{
  kOutputEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,
  kNumber,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // data, name or operator
  Value value;       // of strings and numbers
  int line = 0;      // from 1

  bool IsOperator(std::string_view symbol) const {
    return kind == TokenKind::kOperator && text == symbol;
  }
  bool IsName(std::string_view name) const { return kind == TokenKind::kName && text == name; }
};

// Ends in a kEnd token. InvalidArgument with the line for anything that is not a token.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// InvalidArgument: "template line N: problem".
absl::Status SyntaxError(int line, std::string_view problem);

}  // namespace essor::model::jinja
