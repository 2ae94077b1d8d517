// Converts a model: between Hugging Face directories and GGUF files, to another element type, and
// from a dense model to a Mixture of Experts.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace essor::client {

enum class ConvertType {
  kBF16,
  kF32,
  kQ8_0,  // GGUF only
};

// InvalidArgument listing the known names for anything but "bf16", "f32", "q8_0".
absl::StatusOr<ConvertType> ParseConvertType(const std::string& name);

// Every feed-forward layer becomes `num_experts` copies of itself behind a seeded random router
// (Mixtral's layout). As the router's weights are normalised over the chosen experts, the model's
// outputs stay those of the dense one up to rounding.
struct Upcycle {
  uint32_t num_experts = 8;
  uint32_t top_k = 2;
  // Adds seeded noise of 0.05 x the tensor's standard deviation to every expert's weights: routing
  // then matters.
  std::optional<uint64_t> perturb_seed;
};

// "8x2": 8 experts, 2 for each token. InvalidArgument for anything else.
absl::StatusOr<Upcycle> ParseUpcycle(const std::string& text);

struct ConvertOptions {
  std::string source;  // Hugging Face directory, or a file ending in .gguf
  // Ending in .gguf: a GGUF file. Otherwise a Hugging Face directory: config.json,
  // model*.safetensors, tokenizer.json, tokenizer_config.json, generation_config.json.
  std::string output;
  // What matrices are stored as. In GGUF files vectors and routers are always f32, and matrices
  // whose rows q8_0 cannot divide are bf16.
  ConvertType to = ConvertType::kBF16;
  std::optional<Upcycle> upcycle;
  bool overwrite = false;  // replace an existing file, or the model files of a directory
  uint64_t shard_bytes = 4'000'000'000;  // largest safetensors file
  // Called with one line of text at the start, about every 5 % and at the end; may be empty.
  std::function<void(const std::string& line)> progress;
};

// Families: llama, mixtral, qwen3, qwen3_moe. The same source, options and seed give the same
// bytes. Memory stays within some tens of MB whatever the model's size. Nothing appears under the
// output's name before it is complete. Errors:
//   NotFound            no such source
//   InvalidArgument     an unknown family, a broken source, q8_0 into a directory, upcycling what
//                       is a Mixture of Experts already, top_k above num_experts
//   AlreadyExists       the output exists and is not empty, without `overwrite`
//   ResourceExhausted, PermissionDenied, ...  from the file system, naming the path
absl::Status ConvertModel(const ConvertOptions& options);

}  // namespace essor::client
