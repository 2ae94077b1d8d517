#include "model/chat/token_stream.h"

#include "absl/strings/str_format.h"

namespace essor::model::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kOutputBegin:
      return "'{{'";
    case TokenKind::kOutputEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kNumber:
      return "a number";
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kName:
    case TokenKind::kOperator:
      break;
  }
  return absl::StrFormat("'%s'", token.text);
}

std::string Describe(TokenKind kind) {
  return kind == TokenKind::kName ? "a name" : Describe(Token{kind, "", Value(), 0});
}

}  // namespace

bool TokenStream::SkipOperator(std::string_view symbol) {
  if (!current().IsOperator(symbol)) return false;
  Advance();
  return true;
}

bool TokenStream::SkipName(std::string_view name) {
  if (!current().IsName(name)) return false;
  Advance();
  return true;
}

absl::Status TokenStream::ExpectOperator(std::string_view symbol) {
  if (SkipOperator(symbol)) return absl::OkStatus();
  return SyntaxError(line(),
                     absl::StrFormat("expected '%s', found %s", symbol, Describe(current())));
}

absl::Status TokenStream::ExpectName(std::string_view name) {
  if (SkipName(name)) return absl::OkStatus();
  return SyntaxError(line(), absl::StrFormat("expected '%s', found %s", name, Describe(current())));
}

absl::Status TokenStream::ExpectKind(TokenKind kind) {
  if (current().kind != kind) {
    return SyntaxError(
        line(), absl::StrFormat("expected %s, found %s", Describe(kind), Describe(current())));
  }
  Advance();
  return absl::OkStatus();
}

absl::Status TokenStream::Unexpected() const {
  return SyntaxError(line(), absl::StrFormat("unexpected %s", Describe(current())));
}

NameId TokenStream::Intern(const std::string& name) {
  const auto [it, is_new] = name_ids_.try_emplace(name, static_cast<NameId>(names_.size()));
  if (is_new) {
    names_.push_back(name);
    times_seen_.push_back(0);
  }
  ++times_seen_[it->second];
  return it->second;
}

int TokenStream::TimesSeen(const std::string& name) const {
  const auto it = name_ids_.find(name);
  return it == name_ids_.end() ? 0 : times_seen_[it->second];
}

}  // namespace essor::model::jinja
