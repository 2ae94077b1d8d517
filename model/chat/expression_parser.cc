#include "model/chat/expression_parser.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/parser.h"

namespace essor::model::jinja {
namespace {

int Deepest(const ExpressionPtr& a) { return a == nullptr ? 0 : a->depth; }
template <typename... Rest>
int Deepest(const ExpressionPtr& a, const Rest&... rest) {
  return std::max(Deepest(a), Deepest(rest...));
}
int Deepest(const std::vector<ExpressionPtr>& items) {
  int depth = 0;
  for (const ExpressionPtr& item : items) depth = std::max(depth, Deepest(item));
  return depth;
}
int Deepest(const Arguments& arguments) {
  int depth = std::max(Deepest(arguments.positional),
                       Deepest(arguments.positional_list, arguments.keyword_dict));
  for (const auto& [name, value] : arguments.keyword) depth = std::max(depth, Deepest(value));
  return depth;
}

int OperandDepth(const Literal&) { return 0; }
int OperandDepth(const NameReference&) { return 0; }
int OperandDepth(const ListDisplay& node) { return Deepest(node.items); }
int OperandDepth(const DictDisplay& node) {
  int depth = 0;
  for (const auto& [key, value] : node.entries) depth = std::max(depth, Deepest(key, value));
  return depth;
}
int OperandDepth(const GetAttribute& node) { return Deepest(node.object); }
int OperandDepth(const GetItem& node) { return Deepest(node.object, node.index); }
int OperandDepth(const GetSlice& node) {
  return Deepest(node.object, node.start, node.stop, node.step);
}
int OperandDepth(const Call& node) {
  return std::max(Deepest(node.callee), Deepest(node.arguments));
}
int OperandDepth(const ApplyFilter& node) {
  return std::max(Deepest(node.object), Deepest(node.arguments));
}
int OperandDepth(const ApplyTest& node) {
  return std::max(Deepest(node.object), Deepest(node.arguments));
}
int OperandDepth(const Unary& node) { return Deepest(node.operand); }
int OperandDepth(const Binary& node) { return Deepest(node.left, node.right); }
int OperandDepth(const Logic& node) { return Deepest(node.left, node.right); }
int OperandDepth(const Comparison& node) {
  int depth = Deepest(node.first);
  for (const auto& [op, operand] : node.rest) depth = std::max(depth, Deepest(operand));
  return depth;
}
int OperandDepth(const Concatenation& node) { return Deepest(node.parts); }
int OperandDepth(const Conditional& node) {
  return Deepest(node.condition, node.then, node.otherwise);
}

// The limit keeps everything that walks the tree, its destructor included, from deep recursion.
template <typename Node>
absl::StatusOr<ExpressionPtr> Make(int line, Node node) {
  auto expression = std::make_unique<Expression>();
  expression->line = line;
  expression->depth = OperandDepth(node) + 1;
  if (expression->depth > kSyntaxDepthMax) return SyntaxError(line, "expression nested too deep");
  expression->node = std::move(node);
  return expression;
}

std::optional<CompareOperator> ComparisonOf(const Token& token) {
  constexpr std::array<std::pair<std::string_view, CompareOperator>, 6> kSymbols = {{
      {"==", CompareOperator::kEqual},
      {"!=", CompareOperator::kNotEqual},
      {"<", CompareOperator::kLess},
      {"<=", CompareOperator::kLessEqual},
      {">", CompareOperator::kGreater},
      {">=", CompareOperator::kGreaterEqual},
  }};
  for (const auto& [symbol, op] : kSymbols) {
    if (token.IsOperator(symbol)) return op;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(bool conditional) {
  const int line = stream_.line();
  const auto parse = [&] { return conditional ? ParseConditional() : ParseOr(); };
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr first, parse());
  if (!stream_.current().IsOperator(",")) return first;
  ListDisplay tuple{.items = {}, .is_tuple = true};
  tuple.items.push_back(std::move(first));
  while (stream_.SkipOperator(",")) {
    // A comma may end the tuple.
    const Token& token = stream_.current();
    if (token.kind == TokenKind::kBlockEnd || token.kind == TokenKind::kOutputEnd ||
        token.IsOperator(")") || token.IsOperator("=")) {
      break;
    }
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr item, parse());
    tuple.items.push_back(std::move(item));
  }
  return Make(line, std::move(tuple));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConditional() {
  const DepthGuard guard(&depth_);
  if (depth_ > kSyntaxDepthMax) {
    return SyntaxError(stream_.line(), "expression nested too deep");
  }
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr result, ParseOr());
  while (stream_.current().IsName("if")) {
    const int line = stream_.line();
    stream_.Advance();
    Conditional conditional;
    ESSOR_ASSIGN_OR_RETURN(conditional.condition, ParseOr());
    if (stream_.SkipName("else")) {
      ESSOR_ASSIGN_OR_RETURN(conditional.otherwise, ParseConditional());
    }
    conditional.then = std::move(result);
    ESSOR_ASSIGN_OR_RETURN(result, Make(line, std::move(conditional)));
  }
  return result;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (stream_.current().IsName("or")) {
    const int line = stream_.line();
    stream_.Advance();
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    ESSOR_ASSIGN_OR_RETURN(
        left, Make(line, Logic{LogicOperator::kOr, std::move(left), std::move(right)}));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (stream_.current().IsName("and")) {
    const int line = stream_.line();
    stream_.Advance();
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    ESSOR_ASSIGN_OR_RETURN(
        left, Make(line, Logic{LogicOperator::kAnd, std::move(left), std::move(right)}));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  if (!stream_.current().IsName("not")) return ParseComparison();
  const DepthGuard guard(&depth_);
  if (depth_ > kSyntaxDepthMax) {
    return SyntaxError(stream_.line(), "expression nested too deep");
  }
  const int line = stream_.line();
  stream_.Advance();
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  return Make(line, Unary{UnaryOperator::kNot, std::move(operand)});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseComparison() {
  const int line = stream_.line();
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  Comparison comparison;
  while (true) {
    std::optional<CompareOperator> op = ComparisonOf(stream_.current());
    if (op.has_value()) {
      stream_.Advance();
    } else if (stream_.SkipName("in")) {
      op = CompareOperator::kIn;
    } else if (stream_.current().IsName("not") && stream_.next().IsName("in")) {
      stream_.Advance();
      stream_.Advance();
      op = CompareOperator::kNotIn;
    } else {
      break;
    }
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    comparison.rest.emplace_back(*op, std::move(operand));
  }
  if (comparison.rest.empty()) return first;
  comparison.first = std::move(first);
  return Make(line, std::move(comparison));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBinary(
    Parse operand, std::initializer_list<std::pair<std::string_view, BinaryOperator>> operators) {
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*operand)());
  while (true) {
    std::optional<BinaryOperator> found;
    for (const auto& [symbol, op] : operators) {
      if (stream_.current().IsOperator(symbol)) found = op;
    }
    if (!found.has_value()) return left;
    const int line = stream_.line();
    stream_.Advance();
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*operand)());
    ESSOR_ASSIGN_OR_RETURN(left, Make(line, Binary{*found, std::move(left), std::move(right)}));
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  return ParseBinary(&ExpressionParser::ParseConcatenation,
                     {{"+", BinaryOperator::kAdd}, {"-", BinaryOperator::kSubtract}});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcatenation() {
  const int line = stream_.line();
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!stream_.current().IsOperator("~")) return first;
  Concatenation concatenation;
  concatenation.parts.push_back(std::move(first));
  while (stream_.SkipOperator("~")) {
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr part, ParseProduct());
    concatenation.parts.push_back(std::move(part));
  }
  return Make(line, std::move(concatenation));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  return ParseBinary(&ExpressionParser::ParsePower, {{"*", BinaryOperator::kMultiply},
                                                     {"/", BinaryOperator::kDivide},
                                                     {"//", BinaryOperator::kFloorDivide},
                                                     {"%", BinaryOperator::kModulo}});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePower() {
  return ParseBinary(&ExpressionParser::ParseUnaryWithFilter, {{"**", BinaryOperator::kPower}});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filter) {
  const int line = stream_.line();
  ExpressionPtr result;
  const bool minus = stream_.current().IsOperator("-");
  if (minus || stream_.current().IsOperator("+")) {
    const DepthGuard guard(&depth_);
    if (depth_ > kSyntaxDepthMax) return SyntaxError(line, "expression nested too deep");
    stream_.Advance();
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(/*with_filter=*/false));
    ESSOR_ASSIGN_OR_RETURN(result,
                           Make(line, Unary{minus ? UnaryOperator::kMinus : UnaryOperator::kPlus,
                                            std::move(operand)}));
  } else {
    ESSOR_ASSIGN_OR_RETURN(result, ParsePrimary());
  }
  ESSOR_ASSIGN_OR_RETURN(result, ParsePostfix(std::move(result)));
  return with_filter ? ParseFilters(std::move(result)) : std::move(result);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token& token = stream_.current();
  const int line = token.line;
  switch (token.kind) {
    case TokenKind::kName:
      return ParseName();
    case TokenKind::kNumber: {
      Value value = token.value;
      stream_.Advance();
      return Make(line, Literal{std::move(value)});
    }
    case TokenKind::kString: {
      // Adjacent literals are one, as in Python.
      std::string text;
      while (stream_.current().kind == TokenKind::kString) {
        text += *stream_.current().value.as_text();
        stream_.Advance();
      }
      return Make(line, Literal{Value(std::move(text))});
    }
    default:
      break;
  }
  if (token.IsOperator("(")) return ParseParenthesis();
  if (token.IsOperator("[")) return ParseList();
  if (token.IsOperator("{")) return ParseDict();
  return stream_.Unexpected();
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseName() {
  const Token token = stream_.current();
  stream_.Advance();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return Make(token.line, Literal{Value(true)});
  if (name == "false" || name == "False") return Make(token.line, Literal{Value(false)});
  if (name == "none" || name == "None") return Make(token.line, Literal{Value(None{})});
  return Make(token.line, NameReference{stream_.Intern(name)});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseParenthesis() {
  const int line = stream_.line();
  stream_.Advance();
  if (stream_.SkipOperator(")")) return Make(line, ListDisplay{.items = {}, .is_tuple = true});
  ESSOR_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple(/*conditional=*/true));
  ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  return inner;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseList() {
  const int line = stream_.line();
  stream_.Advance();
  ListDisplay list;
  while (!stream_.SkipOperator("]")) {
    if (!list.items.empty()) {
      ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.SkipOperator("]")) break;
    }
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    list.items.push_back(std::move(item));
  }
  return Make(line, std::move(list));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseDict() {
  const int line = stream_.line();
  stream_.Advance();
  DictDisplay dict;
  while (!stream_.SkipOperator("}")) {
    if (!dict.entries.empty()) {
      ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.SkipOperator("}")) break;
    }
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    dict.entries.emplace_back(std::move(key), std::move(value));
  }
  return Make(line, std::move(dict));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr object) {
  while (true) {
    const Token& token = stream_.current();
    if (token.IsOperator(".")) {
      const int line = token.line;
      stream_.Advance();
      const Token name = stream_.current();
      stream_.Advance();
      if (name.kind == TokenKind::kName) {
        ESSOR_ASSIGN_OR_RETURN(object, Make(line, GetAttribute{std::move(object), name.text}));
      } else if (name.kind == TokenKind::kNumber && name.value.is_int()) {
        ESSOR_ASSIGN_OR_RETURN(ExpressionPtr index, Make(line, Literal{name.value}));
        ESSOR_ASSIGN_OR_RETURN(object, Make(line, GetItem{std::move(object), std::move(index)}));
      } else {
        return SyntaxError(line, "expected a name or a number behind '.'");
      }
    } else if (token.IsOperator("[")) {
      ESSOR_ASSIGN_OR_RETURN(object, ParseSubscript(std::move(object)));
    } else if (token.IsOperator("(")) {
      ESSOR_ASSIGN_OR_RETURN(object, ParseCall(std::move(object)));
    } else {
      return object;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr object) {
  const int line = stream_.line();
  stream_.Advance();
  GetSlice slice;
  const auto ends_part = [&] {
    return stream_.current().IsOperator(":") || stream_.current().IsOperator("]");
  };
  if (!ends_part()) {
    ESSOR_ASSIGN_OR_RETURN(slice.start, ParseTuple(/*conditional=*/true));
    if (stream_.SkipOperator("]")) {
      return Make(line, GetItem{std::move(object), std::move(slice.start)});
    }
  }
  ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
  if (!ends_part()) {
    ESSOR_ASSIGN_OR_RETURN(slice.stop, ParseExpression());
  }
  if (stream_.SkipOperator(":") && !ends_part()) {
    ESSOR_ASSIGN_OR_RETURN(slice.step, ParseExpression());
  }
  ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  slice.object = std::move(object);
  return Make(line, std::move(slice));
}

absl::StatusOr<Arguments> ExpressionParser::ParseArguments() {
  ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  Arguments arguments;
  bool first = true;
  while (!stream_.SkipOperator(")")) {
    if (!first) {
      ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.SkipOperator(")")) break;
    }
    first = false;
    const bool list = stream_.current().IsOperator("*");
    if (list || stream_.current().IsOperator("**")) {
      ExpressionPtr& target = list ? arguments.positional_list : arguments.keyword_dict;
      if (target != nullptr || arguments.keyword_dict != nullptr) return stream_.Unexpected();
      stream_.Advance();
      ESSOR_ASSIGN_OR_RETURN(target, ParseExpression());
      continue;
    }
    if (arguments.keyword_dict != nullptr) return stream_.Unexpected();
    if (stream_.current().kind == TokenKind::kName && stream_.next().IsOperator("=")) {
      std::string name = stream_.current().text;
      stream_.Advance();
      stream_.Advance();
      ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      arguments.keyword.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (!arguments.keyword.empty() || arguments.positional_list != nullptr) {
      return SyntaxError(stream_.line(), "positional argument behind a keyword argument");
    }
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    arguments.positional.push_back(std::move(value));
  }
  return arguments;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCall(ExpressionPtr callee) {
  const int line = stream_.line();
  ESSOR_ASSIGN_OR_RETURN(Arguments arguments, ParseArguments());
  return Make(line, Call{std::move(callee), std::move(arguments)});
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr object) {
  while (true) {
    if (stream_.SkipOperator("|")) {
      ESSOR_ASSIGN_OR_RETURN(object, ParseFilter(std::move(object)));
    } else if (stream_.SkipName("is")) {
      ESSOR_ASSIGN_OR_RETURN(object, ParseTest(std::move(object)));
    } else if (stream_.current().IsOperator("(")) {
      ESSOR_ASSIGN_OR_RETURN(object, ParseCall(std::move(object)));
    } else {
      return object;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr object) {
  const Token token = stream_.current();
  ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
  if (FindFilter(token.text) == nullptr) {
    return SyntaxError(token.line, absl::StrFormat("no filter named '%s'", token.text));
  }
  ApplyFilter filter{std::move(object), FindFilter(token.text), {}};
  if (stream_.current().IsOperator("(")) {
    ESSOR_ASSIGN_OR_RETURN(filter.arguments, ParseArguments());
  }
  return Make(token.line, std::move(filter));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilterChain(bool after_pipe) {
  ExpressionPtr chain;
  while (after_pipe || stream_.SkipOperator("|")) {
    after_pipe = false;
    ESSOR_ASSIGN_OR_RETURN(chain, ParseFilter(std::move(chain)));
  }
  return chain;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr object) {
  ApplyTest test;
  test.negated = stream_.SkipName("not");
  const Token token = stream_.current();
  ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
  if (FindTest(token.text) == nullptr) {
    return SyntaxError(token.line, absl::StrFormat("no test named '%s'", token.text));
  }
  test.function = FindTest(token.text);
  const Token& next = stream_.current();
  const bool literal = next.kind == TokenKind::kString || next.kind == TokenKind::kNumber;
  const bool name = next.kind == TokenKind::kName && !next.IsName("else") && !next.IsName("or") &&
                    !next.IsName("and") && !next.IsName("if");
  if (next.IsOperator("(")) {
    ESSOR_ASSIGN_OR_RETURN(test.arguments, ParseArguments());
  } else if (literal || name || next.IsOperator("[") || next.IsOperator("{")) {
    if (next.IsName("is")) return SyntaxError(next.line, "tests with 'is' cannot be chained");
    ESSOR_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ESSOR_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test.arguments.positional.push_back(std::move(argument));
  }
  test.object = std::move(object);
  return Make(token.line, std::move(test));
}

}  // namespace essor::model::jinja
