// Expressions, with Jinja's precedence: inline if, or, and, not, comparison, + -, ~, * / // %,
// sign,
// **, postfix, filters and tests.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/ast.h"
#include "model/chat/token_stream.h"

namespace essor::model::jinja {

class ExpressionParser {
 public:
  // `stream` must outlive the parser.
  explicit ExpressionParser(TokenStream* stream) : stream_(*stream) {}

  absl::StatusOr<ExpressionPtr> ParseExpression() { return ParseConditional(); }
  // Possibly a tuple without parentheses; not `conditional`: without an inline if, as in
  // `for x in xs if condition`.
  absl::StatusOr<ExpressionPtr> ParseTuple(bool conditional);
  // Filters for a block: `upper | trim`, applied to null.
  absl::StatusOr<ExpressionPtr> ParseFilterChain(bool after_pipe);
  // "(a, b=1)", from the parenthesis on.
  absl::StatusOr<Arguments> ParseArguments();

 private:
  using Parse = absl::StatusOr<ExpressionPtr> (ExpressionParser::*)();

  absl::StatusOr<ExpressionPtr> ParseConditional();
  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseComparison();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcatenation();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filter);
  absl::StatusOr<ExpressionPtr> ParseUnaryWithFilter() { return ParseUnary(true); }
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseName();
  absl::StatusOr<ExpressionPtr> ParseParenthesis();
  absl::StatusOr<ExpressionPtr> ParseList();
  absl::StatusOr<ExpressionPtr> ParseDict();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseCall(ExpressionPtr callee);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseBinary(
      Parse operand, std::initializer_list<std::pair<std::string_view, BinaryOperator>> operators);

  TokenStream& stream_;
  int depth_ = 0;
};

}  // namespace essor::model::jinja
