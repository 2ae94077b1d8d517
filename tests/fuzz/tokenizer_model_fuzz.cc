// tokenizer.model and tiktoken.model as untrusted input: every file either is refused with
// InvalidArgument or gives a tokenizer that encodes and decodes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_config.h"
#include "model/tokenizer/utf8.h"

namespace {

using essor::model::Tokenizer;
using essor::model::TokenizerConfig;

void TryTokenizer(const absl::StatusOr<std::unique_ptr<Tokenizer>>& tokenizer,
                  const std::string& text) {
  if (!tokenizer.ok()) {
    ESSOR_CHECK(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  for (const bool special : {false, true}) {
    const auto ids = (*tokenizer)->Encode(text, {.add_special = special, .parse_special = special});
    ESSOR_CHECK(ids.ok());
    ESSOR_CHECK((*tokenizer)->Decode(*ids, special).ok());
  }
  // Any ids decode, the same at once and one by one.
  std::vector<essor::TokenId> all;
  for (uint32_t id = 0; id < std::min(1000u, (*tokenizer)->vocab_size()); ++id) all.push_back(id);
  essor::model::IncrementalDetokenizer detokenizer(tokenizer->get(), /*skip_special=*/false);
  std::string decoded;
  for (const essor::TokenId id : all) decoded += detokenizer.Push(id);
  decoded += detokenizer.Finish();
  ESSOR_CHECK(*(*tokenizer)->Decode(all, /*skip_special=*/false) == decoded);
  ESSOR_CHECK(essor::model::IsValidUtf8(decoded));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  // The file itself is text with all that it mentions.
  std::string text = "  a \xe4\xb8\xad\xf0\x9f\x98\x80 ";
  essor::model::AppendLossyUtf8(file.substr(0, 4096), /*final=*/true, &text);
  TryTokenizer(Tokenizer::FromSentencePiece(file, TokenizerConfig()), text);
  TryTokenizer(Tokenizer::FromTiktoken(file, TokenizerConfig()), text);
  const auto config = essor::model::ParseTokenizerConfig(file);
  ESSOR_CHECK(config.ok() || config.status().code() == absl::StatusCode::kInvalidArgument);
  return 0;
}
