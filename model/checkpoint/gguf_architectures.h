// What each GGUF architecture says besides the keys that all have.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/gguf_json.h"
#include "model/checkpoint/gguf_keys.h"

namespace essor::model {

// Heads and experts, as far as all architectures name them alike.
struct GgufSizes {
  uint64_t layers = 0;  // without those that guess ahead
  uint64_t heads = 0;
  uint64_t head_dim = 0;    // 0 with latent attention
  uint64_t rotary_dim = 0;  // of them
  uint64_t experts = 0;
  uint64_t experts_per_token = 0;
  uint64_t expert_ffn = 0;
};

// How one architecture becomes a Hugging Face config.
struct GgufArchitecture {
  const char* name;        // general.architecture
  const char* model_type;  // Hugging Face's
  const char* class_name;
  bool partial_rotation = false;  // rope.dimension_count may be less than the head
  bool latent_attention = false;
  const char* dense_ffn = "intermediate_size";  // what the family's config calls it
  bool drafts = false;  // block_count includes nextn_predict_layers layers that guess ahead
  // Keys that nobody reads are refused. Not for the architectures whose files have long been read.
  bool strict = true;
  // Writes what is the architecture's own; null: nothing.
  absl::Status (*write)(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) = nullptr;
};

// The one that the file names; Mixtral is the architecture "llama" with experts. InvalidArgument
// listing the known ones for any other.
absl::StatusOr<const GgufArchitecture*> FindGgufArchitecture(const GgufFile& file);

}  // namespace essor::model
