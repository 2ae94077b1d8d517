// Answers as untrusted input: however a stream is cut, the same comes out; what holds no
// well-formed call comes out whole. Input: one byte each for the syntax of calls, the reasoning and
// other options, the seed of the cuts; then the stream.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"
#include "model/chat/output/output_grammar.h"
#include "model/chat/output/output_merge.h"
#include "model/chat/output/output_parser.h"
#include "model/chat/output/tool_schemas.h"

namespace essor::model {
namespace {

constexpr char kTools[] = R"([{"name": "f", "parameters": {"properties": {
  "s": {"type": "string"}, "n": {"type": "integer"}, "b": {"type": ["boolean", "null"]},
  "o": {"type": "object"}}}}])";

using Kind = OutputDelta::Kind;

OutputParserOptions OptionsFrom(uint8_t calls, uint8_t flags) {
  constexpr int kCalls = static_cast<int>(CallSyntax::kMistral) + 1;
  constexpr int kReasonings = static_cast<int>(ReasoningSyntax::kThinkSquare) + 1;
  OutputParserOptions options;
  options.syntax.calls = static_cast<CallSyntax>(calls % kCalls);
  options.syntax.reasoning = static_cast<ReasoningSyntax>(flags % kReasonings);
  if ((flags & 16) != 0) options.tools_json = kTools;
  options.begins_in_reasoning = (flags & 32) != 0;
  options.calls = (flags & 64) == 0;
  if ((flags & 128) != 0) options.call_bytes_max = 48;
  return options;
}

// Cut into parts of 1 to `part_max` bytes.
std::vector<OutputDelta> Parse(const OutputParserOptions& options, std::string_view stream,
                               size_t part_max, uint32_t seed) {
  const auto parser = OutputParser::Create(options);
  ESSOR_CHECK(parser.ok());
  std::minstd_rand random(seed);
  std::vector<OutputDelta> merged;
  while (!stream.empty()) {
    const size_t part = 1 + random() % part_max;
    MergeDeltas((*parser)->Feed(stream.substr(0, part)), &merged);
    stream.remove_prefix(std::min(part, stream.size()));
  }
  MergeDeltas((*parser)->Finish(), &merged);
  return merged;
}

std::string WithoutSpace(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (std::string_view(" \t\n\v\f\r").find(c) == std::string_view::npos) result.push_back(c);
  }
  return result;
}

// Nothing is lost but white space and one marker of each kind around the reasoning.
void CheckWhole(const OutputParserOptions& options, std::string_view stream,
                const std::vector<OutputDelta>& merged) {
  std::string reasoning, content;
  for (const OutputDelta& delta : merged) {
    if (delta.kind != Kind::kReasoning && delta.kind != Kind::kContent) return;
    (delta.kind == Kind::kReasoning ? reasoning : content) += delta.text;
  }
  const ReasoningMarkers markers = MarkersOf(options.syntax.reasoning);
  if (markers.open.empty()) {
    ESSOR_CHECK(reasoning.empty() && content == stream);
    return;
  }
  const std::string expected = WithoutSpace(stream);
  bool whole = false;
  for (const std::string_view open : {std::string_view(), markers.open}) {
    for (const std::string_view close : {std::string_view(), markers.close}) {
      whole = whole || WithoutSpace(std::string(open) + reasoning + std::string(close) + content) ==
                           expected;
    }
  }
  ESSOR_CHECK(whole);
}

// Calls are numbered, and begin, have arguments and end.
void CheckCalls(const std::vector<OutputDelta>& merged) {
  int calls = 0;
  for (size_t i = 0; i < merged.size(); ++i) {
    if (merged[i].kind == Kind::kReasoning || merged[i].kind == Kind::kContent) {
      ESSOR_CHECK(!merged[i].text.empty());
      continue;
    }
    ESSOR_CHECK(i + 2 < merged.size() && merged[i].kind == Kind::kCallBegin);
    ESSOR_CHECK(!merged[i].call_name.empty());
    ESSOR_CHECK(merged[i + 1].kind == Kind::kCallArguments && merged[i + 2].kind == Kind::kCallEnd);
    for (size_t part = i; part < i + 3; ++part) ESSOR_CHECK(merged[part].call_index == calls);
    const auto arguments = ParseJsonValue(merged[i + 1].text);
    ESSOR_CHECK(arguments.ok() && arguments->as_dict() != nullptr);
    ++calls;
    i += 2;
  }
}

void CheckStream(const OutputParserOptions& options, std::string_view stream, uint32_t seed) {
  const std::vector<OutputDelta> merged = Parse(options, stream, stream.size() + 1, 1);
  ESSOR_CHECK(merged == Parse(options, stream, 1 + seed % 16, seed));
  CheckCalls(merged);
  // Harmony drops the markers of messages that are well-formed.
  if (options.syntax.calls != CallSyntax::kHarmony) CheckWhole(options, stream, merged);
}

}  // namespace
}  // namespace essor::model

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 3, size - 3);
  essor::model::CheckStream(essor::model::OptionsFrom(data[0], data[1]), stream, data[2]);
  return 0;
}
