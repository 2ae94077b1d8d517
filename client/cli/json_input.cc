#include "client/cli/json_input.h"

#include <cstdio>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/source/text_files.h"

namespace essor::cli {
namespace {

using simdjson::dom::element;

absl::Status BadInput(const std::string& source, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s", source, what));
}

absl::StatusOr<uint32_t> ParseId(element value) {
  uint64_t id = 0;
  if (value.is_uint64() && value.get(id) == simdjson::SUCCESS &&
      id <= std::numeric_limits<uint32_t>::max()) {
    return static_cast<uint32_t>(id);
  }
  return absl::InvalidArgumentError("is not a token id (a whole number from 0 to 4294967295)");
}

}  // namespace

absl::StatusOr<std::string> ReadStdin() {
  std::string text;
  char buffer[65536];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0) {
    text.append(buffer, count);
    if (text.size() > kJsonInputBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrFormat("stdin: more than %d bytes", kJsonInputBytesMax));
    }
  }
  if (std::ferror(stdin) != 0) return absl::UnavailableError("cannot read stdin");
  return text;
}

absl::Status ForEachElement(
    const std::string& json, const std::string& source,
    const std::function<absl::Status(size_t index, element element)>& on_element) {
  simdjson::dom::parser parser;
  element root;
  if (const auto error = parser.parse(json).get(root); error != simdjson::SUCCESS) {
    return BadInput(source, absl::StrFormat("not JSON: %s", simdjson::error_message(error)));
  }
  simdjson::dom::array array;
  if (root.get(array) != simdjson::SUCCESS) return BadInput(source, "not a JSON array");
  size_t index = 0;
  for (const element item : array) ESSOR_RETURN_IF_ERROR(on_element(index++, item));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<uint32_t>>> ParseTokenArrays(const std::string& json,
                                                                    const std::string& source) {
  std::vector<std::vector<uint32_t>> sequences;
  ESSOR_RETURN_IF_ERROR(ForEachElement(json, source, [&](size_t index, element item) {
    simdjson::dom::array array;
    if (item.get(array) != simdjson::SUCCESS) {
      return BadInput(source, absl::StrFormat("element %d is not an array of token ids", index));
    }
    std::vector<uint32_t>& ids = sequences.emplace_back();
    ids.reserve(array.size());
    for (const element value : array) {
      const auto id = ParseId(value);
      if (!id.ok()) {
        return BadInput(source, absl::StrFormat("element %d, position %d %s", index, ids.size(),
                                                std::string(id.status().message())));
      }
      ids.push_back(*id);
    }
    return absl::OkStatus();
  }));
  return sequences;
}

absl::StatusOr<std::vector<std::vector<uint32_t>>> ReadTokenFile(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const std::string json, model::ReadTextFile(path, kJsonInputBytesMax));
  ESSOR_ASSIGN_OR_RETURN(auto sequences, ParseTokenArrays(json, path));
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].empty()) {
      return BadInput(path, absl::StrFormat("element %d holds no token ids", i));
    }
  }
  return sequences;
}

absl::StatusOr<std::vector<std::string>> ParseTexts(const std::string& json,
                                                    const std::string& source) {
  std::vector<std::string> texts;
  ESSOR_RETURN_IF_ERROR(ForEachElement(json, source, [&](size_t index, element item) {
    std::string_view text;
    if (item.get(text) != simdjson::SUCCESS) {
      return BadInput(source, absl::StrFormat("element %d is not a string", index));
    }
    texts.emplace_back(text);
    return absl::OkStatus();
  }));
  return texts;
}

}  // namespace essor::cli
