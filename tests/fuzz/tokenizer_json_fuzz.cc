// tokenizer.json as untrusted input: every document either is refused with InvalidArgument or gives
// a tokenizer that encodes and decodes.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "model/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = essor::model::Tokenizer::FromTokenizerJson(json);
  if (!tokenizer.ok()) {
    ESSOR_CHECK(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  for (const bool special : {false, true}) {
    // The document itself is text with all that it mentions.
    const auto ids =
        (*tokenizer)
            ->Encode(json.substr(0, 4096), {.add_special = special, .parse_special = special});
    if (ids.ok()) ESSOR_CHECK((*tokenizer)->Decode(*ids, special).ok());
  }
  return 0;
}
