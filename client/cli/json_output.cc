#include "client/cli/json_output.h"

#include <charconv>
#include <cmath>
#include <cstdio>

namespace essor::cli {

void JsonOutput::Value(double number) {
  if (std::isfinite(number)) {
    writer_.Double(number);
  } else {
    writer_.Null();
  }
}

void JsonOutput::Value(float number) {
  if (!std::isfinite(number)) {
    writer_.Null();
    return;
  }
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), number).ptr;
  writer_.RawValue(text, static_cast<size_t>(end - text), rapidjson::kNumberType);
}

void JsonOutput::Value(std::span<const uint32_t> numbers) {
  writer_.StartArray();
  for (const uint32_t number : numbers) writer_.Uint(number);
  writer_.EndArray();
}

void JsonOutput::Value(std::span<const float> numbers) {
  writer_.StartArray();
  for (const float number : numbers) Value(number);
  writer_.EndArray();
}

void JsonOutput::Print() const {
  std::fwrite(buffer_.GetString(), 1, buffer_.GetSize(), stdout);
  std::fputc('\n', stdout);
}

}  // namespace essor::cli
