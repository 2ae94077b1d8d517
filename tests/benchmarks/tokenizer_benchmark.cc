// Speed of tokenising on one thread: every known pre-tokeniser pattern with the vocabularies of
// real tokenizer.json files, on texts of one's own.
//
//   tokenizer_benchmark --tokenizer qwen3=DIR/tokenizer.json --text english=FILE --text code=FILE
//
// A text is encoded in documents of --document-bytes, as prompts come; figures are bytes per second
// of all of it, warm. hf_tokenizer_benchmark.py measures the `tokenizers` library the same way.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "model/tokenizer/scanner.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::benchmarks {
namespace {

using Json = nlohmann::json;
using model::ScannerKind;
using model::Tokenizer;

struct Named {
  std::string name;
  std::string path;
};

struct Options {
  std::vector<Named> tokenizers;
  std::vector<Named> texts;
  size_t document_bytes = 65536;
  bool own_pattern = false;
};

struct Pattern {
  const char* name;
  ScannerKind kind;
};
constexpr Pattern kPatterns[] = {{"gpt2", ScannerKind::kGpt2},
                                 {"qwen2", ScannerKind::kQwen2},
                                 {"llama3", ScannerKind::kLlama3},
                                 {"o200k", ScannerKind::kO200k},
                                 {"kimi", ScannerKind::kKimi}};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Named ParseNamed(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals == std::string::npos) throw CLI::ValidationError(argument, "expected NAME=FILE");
  return {argument.substr(0, equals), argument.substr(equals + 1)};
}

// The document's parts, each at most `bytes` long, cut between characters.
std::vector<std::string_view> CutDocuments(std::string_view text, size_t bytes) {
  std::vector<std::string_view> documents;
  while (!text.empty()) {
    size_t size = std::min(bytes, text.size());
    while (size < text.size() && (static_cast<uint8_t>(text[size]) & 0xc0) == 0x80) --size;
    documents.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return documents;
}

// The file's vocabulary and normaliser behind another pattern.
std::string WithPattern(Json tokenizer, std::string_view pattern) {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", std::string(pattern)}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", false},
                      {"use_regex", false}};
  tokenizer["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}};
  return tokenizer.dump();
}

void RunEncode(benchmark::State& state, const Tokenizer& tokenizer,
               const std::vector<std::string_view>& documents) {
  const model::EncodeOptions options{.add_special = false};
  size_t bytes = 0;
  size_t tokens = 0;
  for (auto _ : state) {
    for (const std::string_view document : documents) {
      const auto ids = tokenizer.Encode(document, options);
      if (!ids.ok()) {
        state.SkipWithError(std::string(ids.status().message()).c_str());
        return;
      }
      tokens += ids->size();
      bytes += document.size();
      benchmark::DoNotOptimize(ids->data());
    }
  }
  state.counters["MB_per_s"] =
      benchmark::Counter(static_cast<double>(bytes) / 1e6, benchmark::Counter::kIsRate);
  state.counters["bytes_per_token"] = static_cast<double>(bytes) / static_cast<double>(tokens);
}

class Suite {
 public:
  explicit Suite(const Options& options) {
    for (const Named& text : options.texts) {
      contents_.push_back(std::make_unique<std::string>(ReadFile(text.path)));
      texts_.emplace_back(text.name, CutDocuments(*contents_.back(), options.document_bytes));
    }
  }

  // False, having said why, when the file cannot be used.
  bool Add(const std::string& name, std::string_view json) {
    auto tokenizer = Tokenizer::FromTokenizerJson(json);
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), tokenizer.status().ToString().c_str());
      return false;
    }
    tokenizers_.push_back(*std::move(tokenizer));
    for (const auto& [text_name, documents] : texts_) {
      benchmark::RegisterBenchmark((name + "/" + text_name).c_str(), [tokenizer =
                                                                          tokenizers_.back().get(),
                                                                      &documents = documents](
                                                                         benchmark::State& state) {
        RunEncode(state, *tokenizer, documents);
      })->Unit(benchmark::kMillisecond);
    }
    return true;
  }

 private:
  std::vector<std::unique_ptr<std::string>> contents_;
  std::vector<std::pair<std::string, std::vector<std::string_view>>> texts_;
  std::vector<std::unique_ptr<Tokenizer>> tokenizers_;
};

int Run(const Options& options) {
  Suite suite(options);
  for (const Named& file : options.tokenizers) {
    const std::string json = ReadFile(file.path);
    if (!suite.Add(file.name, json)) return 1;
    if (options.own_pattern) continue;
    const Json parsed = Json::parse(json);
    for (const Pattern& pattern : kPatterns) {
      const std::string changed = WithPattern(parsed, model::ScannerPattern(pattern.kind));
      if (!suite.Add(file.name + "+" + pattern.name, changed)) return 1;
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);  // takes its own --benchmark_* away
  CLI::App app("Speed of tokenising.");
  essor::benchmarks::Options options;
  std::vector<std::string> tokenizers;
  std::vector<std::string> texts;
  app.add_option("--tokenizer", tokenizers, "NAME=tokenizer.json, byte-level BPE")->required();
  app.add_option("--text", texts, "NAME=FILE of UTF-8")->required();
  app.add_option("--document-bytes", options.document_bytes, "bytes of one call")
      ->check(CLI::PositiveNumber);
  app.add_flag("--own-pattern", options.own_pattern,
               "only with the pattern of the tokenizer's own file");
  try {
    app.parse(argc, argv);
    for (const auto& text : tokenizers) {
      options.tokenizers.push_back(essor::benchmarks::ParseNamed(text));
    }
    for (const auto& text : texts) options.texts.push_back(essor::benchmarks::ParseNamed(text));
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return essor::benchmarks::Run(options);
}
