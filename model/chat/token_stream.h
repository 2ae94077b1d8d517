// The parsers' view of the tokens.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "model/chat/ast.h"
#include "model/chat/lexer.h"

namespace essor::model::jinja {

// What statement and expression parser share: the position in the tokens and the names met so far.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // The last token is kEnd and is never passed.
  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  void Advance() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }
  bool SkipOperator(std::string_view symbol);
  bool SkipName(std::string_view name);
  absl::Status ExpectOperator(std::string_view symbol);
  absl::Status ExpectName(std::string_view name);
  absl::Status ExpectKind(TokenKind kind);
  // "template line N: unexpected ...".
  absl::Status Unexpected() const;

  NameId Intern(const std::string& name);
  // How often Intern() has been called for `name`.
  int TimesSeen(const std::string& name) const;
  std::vector<std::string> TakeNames() { return std::move(names_); }

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
  std::vector<std::string> names_;
  std::vector<int> times_seen_;  // by NameId
  absl::flat_hash_map<std::string, NameId> name_ids_;
};

// Counts nesting while it lives.
class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int* depth_;
};

}  // namespace essor::model::jinja
