#include "model/tokenizer/text_chunks.h"

#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// Python's str.isspace(), which counts the four separators of ASCII.
bool IsPythonSpace(char32_t c) {
  return (UnicodeClasses::Get().Of(c) & kSpace) != 0 || (c >= 0x1c && c <= 0x1f);
}

}  // namespace

std::vector<uint32_t> ChunkEnds(std::string_view text, const ChunkLimits& limits) {
  std::vector<uint32_t> ends;
  size_t characters = 0;  // since the last cut at characters_max
  size_t run = 0;
  bool run_is_space = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text.data() + i);
    const bool is_space = IsPythonSpace(c.value);
    if (characters == limits.characters_max) {
      ends.push_back(static_cast<uint32_t>(i));
      characters = 0;
      run = 0;
    }
    run = is_space == run_is_space ? run + 1 : 1;
    run_is_space = is_space;
    if (run > limits.run_max) {
      ends.push_back(static_cast<uint32_t>(i));
      run = 1;
    }
    ++characters;
    i += c.size;
  }
  if (!text.empty()) ends.push_back(static_cast<uint32_t>(text.size()));
  return ends;
}

}  // namespace essor::model
