#include "model/tokenizer/utf8.h"

#include <simdjson.h>

namespace essor::model {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

struct LeadByte {
  uint32_t size = 0;  // of the whole sequence; 0 when the byte cannot begin one
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xbf;
};

// Table 3-7 of the Unicode Standard: the second byte's range excludes overlong forms, surrogates
// and values above U+10FFFF.
LeadByte ClassifyLead(uint8_t lead) {
  if (lead < 0x80) return {.size = 1};
  if (lead < 0xc2) return {};
  if (lead < 0xe0) return {.size = 2};
  if (lead == 0xe0) return {.size = 3, .second_min = 0xa0};
  if (lead == 0xed) return {.size = 3, .second_max = 0x9f};
  if (lead < 0xf0) return {.size = 3};
  if (lead == 0xf0) return {.size = 4, .second_min = 0x90};
  if (lead < 0xf4) return {.size = 4};
  if (lead == 0xf4) return {.size = 4, .second_max = 0x8f};
  return {};
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  return simdjson::validate_utf8(text.data(), text.size());
}

void AppendUtf8(char32_t code_point, std::string* out) {
  const auto push = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xc0 | (code_point >> 6));
    push(0x80 | (code_point & 0x3f));
  } else if (code_point < 0x10000) {
    push(0xe0 | (code_point >> 12));
    push(0x80 | ((code_point >> 6) & 0x3f));
    push(0x80 | (code_point & 0x3f));
  } else {
    push(0xf0 | (code_point >> 18));
    push(0x80 | ((code_point >> 12) & 0x3f));
    push(0x80 | ((code_point >> 6) & 0x3f));
    push(0x80 | (code_point & 0x3f));
  }
}

size_t CountCodePoints(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<uint8_t>(c) & 0xc0) != 0x80;
  return count;
}

size_t AppendLossyUtf8(std::string_view bytes, bool final, std::string* out) {
  size_t position = 0;
  while (position < bytes.size()) {
    const LeadByte lead = ClassifyLead(static_cast<uint8_t>(bytes[position]));
    if (lead.size == 0) {
      out->append(kReplacement);
      ++position;
      continue;
    }
    uint32_t valid = 1;
    while (valid < lead.size && position + valid < bytes.size()) {
      const auto byte = static_cast<uint8_t>(bytes[position + valid]);
      const uint8_t low = valid == 1 ? lead.second_min : 0x80;
      const uint8_t high = valid == 1 ? lead.second_max : 0xbf;
      if (byte < low || byte > high) break;
      ++valid;
    }
    if (valid == lead.size) {
      out->append(bytes.substr(position, valid));
    } else if (position + valid == bytes.size() && !final) {
      return position;
    } else {
      out->append(kReplacement);
    }
    position += valid;
  }
  return position;
}

}  // namespace essor::model
