#include "model/chat/parser.h"

#include <array>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "model/chat/expression_parser.h"
#include "model/chat/lexer.h"
#include "model/chat/token_stream.h"

namespace essor::model::jinja {
namespace {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : stream_(std::move(tokens)), expressions_(&stream_) {}

  absl::StatusOr<std::unique_ptr<Template>> Run() {
    auto result = std::make_unique<Template>();
    ESSOR_ASSIGN_OR_RETURN(result->body, ParseBlock("", 0, {}));
    result->names = stream_.TakeNames();
    return result;
  }

 private:
  using EndTags = std::initializer_list<std::string_view>;

  // Statements up to one of `ends`, whose name is then current (behind "{%"); with no `ends`, up to
  // the end of the template. `tag` and `tag_line` are of the block that is open.
  absl::StatusOr<Block> ParseBlock(std::string_view tag, int tag_line, EndTags ends) {
    const DepthGuard guard(&depth_);
    if (depth_ > kSyntaxDepthMax) return SyntaxError(stream_.line(), "blocks nested too deep");
    Block block;
    while (true) {
      const Token& token = stream_.current();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() == 0) return block;
        return SyntaxError(tag_line, absl::StrFormat("'%s' is not closed: expected %s", tag,
                                                     absl::StrJoin(ends, " or ", Quote)));
      }
      if (token.kind == TokenKind::kText) {
        block.push_back({token.line, Text{token.text}});
        stream_.Advance();
      } else if (token.kind == TokenKind::kOutputBegin) {
        const int line = token.line;
        stream_.Advance();
        ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple(true));
        ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kOutputEnd));
        block.push_back({line, Output{std::move(value)}});
      } else {
        ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kBlockBegin));
        for (const std::string_view end : ends) {
          if (stream_.current().IsName(end)) return block;
        }
        ESSOR_ASSIGN_OR_RETURN(Statement statement, ParseStatement());
        block.push_back(std::move(statement));
      }
    }
  }

  static void Quote(std::string* out, std::string_view tag) {
    out->append("'").append(tag).append("'");
  }

  absl::Status EndTag() { return stream_.ExpectKind(TokenKind::kBlockEnd); }

  // A block that ends in one tag, which is passed.
  absl::StatusOr<Block> ParseBody(std::string_view tag, int line, std::string_view end) {
    ESSOR_RETURN_IF_ERROR(EndTag());
    ESSOR_ASSIGN_OR_RETURN(Block body, ParseBlock(tag, line, {end}));
    stream_.Advance();
    ESSOR_RETURN_IF_ERROR(EndTag());
    return body;
  }

  absl::StatusOr<Statement> ParseStatement() {
    const Token tag = stream_.current();
    ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
    const int line = tag.line;
    const std::string& name = tag.text;
    if (name == "if") return ParseIf(line);
    if (name == "for") return ParseFor(line);
    if (name == "set") return ParseSet(line);
    if (name == "macro") return ParseMacro(line);
    if (name == "call") return ParseCallBlock(line);
    if (name == "filter") return ParseFilterBlock(line);
    if (name == "with") return ParseWith(line);
    if (name == "generation") {
      const int loops = std::exchange(loops_, 0);
      ESSOR_ASSIGN_OR_RETURN(Block body, ParseBody(name, line, "endgeneration"));
      loops_ = loops;
      return Statement{line, Generation{std::move(body)}};
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return SyntaxError(line, absl::StrFormat("'%s' outside of a loop", name));
      ESSOR_RETURN_IF_ERROR(EndTag());
      return name == "break" ? Statement{line, Break{}} : Statement{line, Continue{}};
    }
    return SyntaxError(line, absl::StrFormat("unknown tag '%s'", name));
  }

  absl::StatusOr<Statement> ParseIf(int line) {
    If statement;
    while (true) {
      ESSOR_ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.ParseTuple(true));
      ESSOR_RETURN_IF_ERROR(EndTag());
      ESSOR_ASSIGN_OR_RETURN(Block body, ParseBlock("if", line, {"elif", "else", "endif"}));
      statement.branches.emplace_back(std::move(condition), std::move(body));
      if (!stream_.SkipName("elif")) break;
    }
    if (stream_.current().IsName("else")) {
      stream_.Advance();
      ESSOR_RETURN_IF_ERROR(EndTag());
      ESSOR_ASSIGN_OR_RETURN(statement.otherwise, ParseBlock("if", line, {"endif"}));
    }
    stream_.Advance();
    ESSOR_RETURN_IF_ERROR(EndTag());
    return Statement{line, std::move(statement)};
  }

  absl::StatusOr<Statement> ParseFor(int line) {
    For loop;
    ESSOR_ASSIGN_OR_RETURN(loop.target, ParseTarget(/*allow_attribute=*/false));
    ESSOR_RETURN_IF_ERROR(stream_.ExpectName("in"));
    ESSOR_ASSIGN_OR_RETURN(loop.iterable, expressions_.ParseTuple(/*conditional=*/false));
    if (stream_.SkipName("if")) {
      ESSOR_ASSIGN_OR_RETURN(loop.condition, expressions_.ParseExpression());
    }
    loop.recursive = stream_.SkipName("recursive");
    ESSOR_RETURN_IF_ERROR(EndTag());
    ++loops_;
    ESSOR_ASSIGN_OR_RETURN(loop.body, ParseBlock("for", line, {"endfor", "else"}));
    --loops_;
    if (stream_.SkipName("else")) {
      ESSOR_RETURN_IF_ERROR(EndTag());
      ESSOR_ASSIGN_OR_RETURN(loop.otherwise, ParseBlock("for", line, {"endfor"}));
    }
    stream_.Advance();
    ESSOR_RETURN_IF_ERROR(EndTag());
    return Statement{line, std::move(loop)};
  }

  absl::StatusOr<Statement> ParseSet(int line) {
    ESSOR_ASSIGN_OR_RETURN(Target target, ParseTarget(/*allow_attribute=*/true));
    if (stream_.SkipOperator("=")) {
      ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple(true));
      ESSOR_RETURN_IF_ERROR(EndTag());
      return Statement{line, Assign{std::move(target), std::move(value)}};
    }
    AssignBlock block{.target = std::move(target), .filter = nullptr, .body = {}};
    ESSOR_ASSIGN_OR_RETURN(block.filter, expressions_.ParseFilterChain(/*after_pipe=*/false));
    ESSOR_ASSIGN_OR_RETURN(block.body, ParseBody("set", line, "endset"));
    return Statement{line, std::move(block)};
  }

  // The body of a macro (or of a call block, which is one), up to `end`.
  absl::Status ParseMacroBody(std::string_view tag, int line, std::string_view end,
                              MacroDefinition* macro) {
    const auto seen = [this] {
      return std::array<int, 3>{stream_.TimesSeen("caller"), stream_.TimesSeen("varargs"),
                                stream_.TimesSeen("kwargs")};
    };
    const std::array<int, 3> before = seen();
    const int loops = std::exchange(loops_, 0);
    ESSOR_ASSIGN_OR_RETURN(Block body, ParseBody(tag, line, end));
    loops_ = loops;
    const std::array<int, 3> after = seen();
    macro->uses_caller = after[0] != before[0];
    macro->uses_varargs = after[1] != before[1];
    macro->uses_kwargs = after[2] != before[2];
    macro->body = std::move(body);
    return absl::OkStatus();
  }

  absl::StatusOr<Statement> ParseMacro(int line) {
    auto macro = std::make_unique<MacroDefinition>();
    macro->name = stream_.current().text;
    ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
    macro->name_id = stream_.Intern(macro->name);
    ESSOR_RETURN_IF_ERROR(ParseSignature(macro.get()));
    ESSOR_RETURN_IF_ERROR(ParseMacroBody("macro", line, "endmacro", macro.get()));
    return Statement{line, DefineMacro{std::move(macro)}};
  }

  absl::StatusOr<Statement> ParseCallBlock(int line) {
    CallBlock block;
    block.caller = std::make_unique<MacroDefinition>();
    block.caller->name = "caller";
    block.caller->name_id = stream_.Intern("caller");
    if (stream_.current().IsOperator("(")) {
      ESSOR_RETURN_IF_ERROR(ParseSignature(block.caller.get()));
    }
    ESSOR_ASSIGN_OR_RETURN(block.call, expressions_.ParseExpression());
    if (!std::holds_alternative<Call>(block.call->node)) {
      return SyntaxError(line, "'call' needs the call of a macro");
    }
    ESSOR_RETURN_IF_ERROR(ParseMacroBody("call", line, "endcall", block.caller.get()));
    return Statement{line, std::move(block)};
  }

  absl::StatusOr<Statement> ParseFilterBlock(int line) {
    FilterBlock block;
    ESSOR_ASSIGN_OR_RETURN(block.filter, expressions_.ParseFilterChain(/*after_pipe=*/true));
    ESSOR_ASSIGN_OR_RETURN(block.body, ParseBody("filter", line, "endfilter"));
    return Statement{line, std::move(block)};
  }

  absl::StatusOr<Statement> ParseWith(int line) {
    With with;
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!with.assignments.empty()) ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      ESSOR_ASSIGN_OR_RETURN(Target target, ParseTargetItem(/*allow_attribute=*/false));
      ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator("="));
      ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseExpression());
      with.assignments.emplace_back(std::move(target), std::move(value));
    }
    ESSOR_ASSIGN_OR_RETURN(with.body, ParseBody("with", line, "endwith"));
    return Statement{line, std::move(with)};
  }

  // A name, a namespace's attribute, or targets in parentheses.
  absl::StatusOr<Target> ParseTargetItem(bool allow_attribute) {
    const DepthGuard guard(&depth_);
    if (depth_ > kSyntaxDepthMax) return SyntaxError(stream_.line(), "target nested too deep");
    if (stream_.SkipOperator("(")) {
      ESSOR_ASSIGN_OR_RETURN(Target inner, ParseTarget(allow_attribute));
      ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
      return inner;
    }
    const Token name = stream_.current();
    ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name.text == constant) {
        return SyntaxError(name.line, absl::StrFormat("cannot assign to '%s'", name.text));
      }
    }
    Target target{.name = stream_.Intern(name.text), .attribute = "", .items = {}};
    if (allow_attribute && stream_.SkipOperator(".")) {
      target.attribute = stream_.current().text;
      ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
    }
    return target;
  }

  absl::StatusOr<Target> ParseTarget(bool allow_attribute) {
    ESSOR_ASSIGN_OR_RETURN(Target first, ParseTargetItem(allow_attribute));
    if (!stream_.current().IsOperator(",")) return first;
    Target tuple{.name = 0, .attribute = "", .items = {}, .is_tuple = true};
    tuple.items.push_back(std::move(first));
    while (stream_.SkipOperator(",")) {
      const Token& token = stream_.current();
      if (token.kind != TokenKind::kName && !token.IsOperator("(")) break;
      if (token.IsName("in")) break;
      ESSOR_ASSIGN_OR_RETURN(Target item, ParseTargetItem(allow_attribute));
      tuple.items.push_back(std::move(item));
    }
    return tuple;
  }

  absl::Status ParseSignature(MacroDefinition* macro) {
    ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator("("));
    while (!stream_.SkipOperator(")")) {
      if (!macro->parameters.empty()) ESSOR_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      const Token name = stream_.current();
      ESSOR_RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kName));
      macro->parameters.push_back(stream_.Intern(name.text));
      macro->parameter_names.push_back(name.text);
      if (stream_.SkipOperator("=")) {
        ESSOR_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseExpression());
        macro->defaults.push_back(std::move(value));
      } else if (!macro->defaults.empty()) {
        return SyntaxError(name.line, "parameter without a default behind one with a default");
      }
    }
    return absl::OkStatus();
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;  // open ones that a break would leave
};

}  // namespace

absl::StatusOr<std::unique_ptr<Template>> ParseTemplate(std::string_view source) {
  ESSOR_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace essor::model::jinja
