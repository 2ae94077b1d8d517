#include "model/tokenizer/added_tokens.h"

#include <unicode/uchar.h>

#include <algorithm>

#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// \w of Unicode's regular expressions (UTS #18, annex C).
bool IsWordCharacter(char32_t c) {
  const auto code_point = static_cast<UChar32>(c);
  constexpr uint32_t kCategories = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_isUAlphabetic(code_point) || (U_GET_GC_MASK(code_point) & kCategories) != 0 ||
         c == 0x200c || c == 0x200d;
}

// First byte of the character that ends before `position`.
size_t PreviousCharacter(std::string_view text, size_t position) {
  do {
    --position;
  } while ((static_cast<uint8_t>(text[position]) & 0xc0) == 0x80);
  return position;
}

bool WordCharacterBefore(std::string_view text, size_t position) {
  return position > 0 &&
         IsWordCharacter(DecodeUtf8(text.data() + PreviousCharacter(text, position)).value);
}

bool WordCharacterAt(std::string_view text, size_t position) {
  return position < text.size() && IsWordCharacter(DecodeUtf8(text.data() + position).value);
}

// `lowest` bounds the walk: what lies before belongs to another token.
size_t SkipSpacesBackwards(std::string_view text, size_t position, size_t lowest) {
  while (position > lowest) {
    const size_t previous = PreviousCharacter(text, position);
    if (!(UnicodeClasses::Get().Of(DecodeUtf8(text.data() + previous).value) & kSpace)) break;
    position = previous;
  }
  return position;
}

size_t SkipSpacesForwards(std::string_view text, size_t position) {
  while (position < text.size()) {
    const CodePoint c = DecodeUtf8(text.data() + position);
    if (!(UnicodeClasses::Get().Of(c.value) & kSpace)) break;
    position += c.size;
  }
  return position;
}

bool IsGuarded(std::span<const uint32_t> guards, size_t begin, size_t end) {
  const auto guard = std::lower_bound(guards.begin(), guards.end(), begin);
  return guard != guards.end() && *guard < end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  nodes_.emplace_back();  // stands for "none"; the root is root_
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) continue;
    uint32_t node = 0;
    for (size_t at = 0; at < content.size(); ++at) {
      const auto byte = static_cast<uint8_t>(content[at]);
      uint32_t next = at == 0 ? root_[byte] : Child(node, byte);
      if (next == 0) {
        next = static_cast<uint32_t>(nodes_.size());
        nodes_.emplace_back();
        if (at == 0) {
          root_[byte] = next;
        } else {
          nodes_[node].children.emplace_back(byte, next);
        }
      }
      node = next;
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(i);
  }
  const auto starts = [](uint32_t node) { return node != 0; };
  if (std::ranges::count_if(root_, starts) == 1) {
    only_first_byte_ = static_cast<char>(std::ranges::find_if(root_, starts) - root_.begin());
  }
}

uint32_t AddedTokenMatcher::Child(uint32_t node, uint8_t byte) const {
  for (const auto& [label, child] : nodes_[node].children) {
    if (label == byte) return child;
  }
  return 0;
}

size_t AddedTokenMatcher::FirstCandidate(std::string_view text, size_t position) const {
  if (tokens_.empty()) return text.size();
  if (only_first_byte_.has_value()) {
    return std::min(text.find(*only_first_byte_, position), text.size());
  }
  while (position < text.size() && root_[static_cast<uint8_t>(text[position])] == 0) ++position;
  return position;
}

int32_t AddedTokenMatcher::Longest(std::string_view text, size_t position) const {
  int32_t longest = -1;
  uint32_t node = root_[static_cast<uint8_t>(text[position])];
  while (node != 0) {
    if (nodes_[node].token >= 0) longest = nodes_[node].token;
    if (++position == text.size()) break;
    node = Child(node, static_cast<uint8_t>(text[position]));
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, bool parse_special,
                              std::span<const uint32_t> guards,
                              std::vector<Segment>* segments) const {
  const auto piece = [](size_t begin, size_t end) {
    return Piece{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
  };
  size_t text_begin = 0;  // of what no token has taken yet
  size_t position = 0;
  while ((position = FirstCandidate(text, position)) < text.size()) {
    const int32_t index = Longest(text, position);
    if (index < 0) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = position;
    size_t end = position + token.content.size();
    position = end;
    if (token.special && (!parse_special || IsGuarded(guards, begin, end))) continue;
    if (token.single_word && (WordCharacterBefore(text, begin) || WordCharacterAt(text, end))) {
      continue;
    }
    if (token.lstrip) begin = std::max(SkipSpacesBackwards(text, begin, text_begin), text_begin);
    if (token.rstrip) end = SkipSpacesForwards(text, end);
    if (text_begin < begin) segments->push_back({piece(text_begin, begin), kText});
    segments->push_back({piece(begin, end), token.id});
    text_begin = end;
    position = std::max(position, end);
  }
  if (text_begin < text.size()) segments->push_back({piece(text_begin, text.size()), kText});
}

}  // namespace essor::model
