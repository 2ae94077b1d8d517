// How a GGUF file says what a Hugging Face directory says: config keys, tensor names, row order.
//
// Architectures and the Hugging Face model types that they become: "llama" (llama, and mixtral
// where llama.expert_count is set), "qwen2", "qwen3", "qwen3moe" (qwen3_moe), "deepseek2"
// (deepseek_v3), "deepseek32" (deepseek_v32), "ernie4_5", "ernie4_5-moe" (ernie4_5_moe), "glm4",
// "glm4moe" (glm4_moe), "llama4" (llama4_text), "minimax-m2" (minimax_m2). Sources: the GGUF
// specification's list of keys and tensor names; llama.cpp's gguf-py/gguf/constants.py and
// tensor_mapping.py; files written by llama.cpp.
//
// These things differ besides names:
//  * Row order. The llama architecture stores the rows of attn_q and attn_k (weights and biases)
//    permuted, so that rotary pairs are neighbours: inside each head of d rows, the file's row
//    2 i + s is Hugging Face's row s d/2 + i (s = 0, 1; i < d/2). GgufTensor::rope_permuted marks
//    such tensors; reading row r of the Hugging Face order means reading the file's row
//    GgufRopeRow(r, d). Heads stay in place, so a slice of whole heads is the same range in both.
//    The other architectures are not permuted.
//  * Stacked experts. One 3-D tensor [experts, rows, cols] per kind; expert e is the contiguous
//    elements [e * rows * cols, (e + 1) * rows * cols). GgufTensor::expert names e.
//  * Latent attention's kv_b. Files before May 2025 have it as it is, later ones hold its parts:
//    attn_k_b [heads, kv_lora_rank, qk_nope_head_dim], which is transposed, and attn_v_b [heads,
//    v_head_dim, kv_lora_rank]. GgufTensorName gives the name of the former.
//  * Tied embeddings. There is no "output.weight" then.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/gguf.h"

namespace essor::model {

// Where a Hugging Face tensor lies in a GGUF file.
struct GgufTensor {
  std::string name;                // "blk.3.ffn_down_exps.weight"
  std::optional<uint32_t> expert;  // set: a slice of the stacked 3-D tensor `name`
  bool rope_permuted = false;      // rows in interleaved order, see above
};

// Pure. `model_type` is the Hugging Face one. InvalidArgument naming the type or the tensor when
// it is not known. "lm_head.weight" gives "output.weight", tied or not: the caller knows.
absl::StatusOr<GgufTensor> GgufTensorName(const std::string& model_type,
                                          const std::string& hf_name);

// Pure, the inverse. `expert` is needed for stacked tensors only (InvalidArgument without it).
absl::StatusOr<std::string> HfTensorName(const std::string& model_type,
                                         const std::string& gguf_name,
                                         std::optional<uint32_t> expert = std::nullopt);

// True for "blk.N.ffn_{gate,up,down}_exps.weight".
bool IsStackedExperts(const std::string& gguf_name);

// The file's row that holds row `hf_row` of the Hugging Face order, for heads of `head_dim` rows.
inline uint64_t GgufRopeRow(uint64_t hf_row, uint64_t head_dim) {
  const uint64_t in_head = hf_row % head_dim;
  const uint64_t half = head_dim / 2;
  return hf_row - in_head + 2 * (in_head % half) + in_head / half;
}

// The Hugging Face config.json of the model in `file`, as JSON text: a function of the metadata and
// of which tensors exist (tied embeddings, attention biases, rope factors). InvalidArgument naming
// file, and key or tensor, for an unknown architecture, a missing key, one of the wrong type, and,
// in all architectures but llama and qwen*, one that is not understood.
absl::StatusOr<std::string> GgufConfigToHf(const GgufFile& file);

}  // namespace essor::model
