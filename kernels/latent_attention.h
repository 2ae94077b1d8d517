// Causal multi-head latent attention in its absorbed form (docs/decisions/0007): queries are mapped
// to the space of the latents before, results back to values after, so that all heads read one
// cached vector per token. The promise of kernels/attention.h about bits holds here too.
//
// Dims: T query rows, H query heads, L latent dim, R dims of the rotated key.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/stream.h"

namespace essor::kernels {

// One layer's cache on one rank, allocated by the caller. Only WriteLatents and LatentAttention
// know the order inside a block; others may copy whole blocks. Where latents are quantised the
// rotated key is not, but held in bfloat16: no norm bounds it, some of its dims are far larger than
// others, and it is a small part of the row.
struct PagedLatents {
  // [num_blocks, block_tokens] rows of row_bytes(): a token's latent, then its rotated key; where
  // quantised its scale if the type has one, the rotated key, the latent, and up to 3 bytes unused.
  void* data;
  KvType type;
  uint32_t num_blocks;
  uint32_t block_tokens;
  uint32_t latent_dim;  // L
  uint32_t rope_dim;    // R

  size_t row_bytes() const { return LatentRowBytes(type, latent_dim, rope_dim); }
  size_t block_bytes() const { return block_tokens * row_bytes(); }
};

// The same cache as blocks of one token, whose numbers are block * block_tokens + slot. Attention
// to chosen positions only (DeepSeek V3.2's sparse attention) is LatentAttention over this view
// with a sequence of one row for each row, whose block table lists the chosen tokens and whose
// context_tokens are their number less one. The result has the bits of attention over a sequence
// that consists of these tokens. For AttentionWorkspaceBytes each such row is a sequence.
// num_blocks * block_tokens must fit 32 bits.
inline PagedLatents AsSingleTokens(PagedLatents cache) {
  cache.num_blocks *= cache.block_tokens;
  cache.block_tokens = 1;
  return cache;
}

// Store the step's latents and keys; to be called before LatentAttention for the same rows.
struct WriteLatentsParams {
  PagedLatents cache;
  const float* latents;    // [T, L], after the norm
  const float* rope_keys;  // [T, R], after the rotation
  std::span<const SequenceRows> sequences;
};
void WriteLatents(const WriteLatentsParams& params, Stream& stream);

// y[t, h] = sum over the positions s that row t sees of w_s * latent_s, where w is the softmax over
// s of scale * (q_latent[t, h] . latent_s + q_rope[t, h] . rope_key_s). Its workspace is
// AttentionWorkspaceBytes (kernels/attention.h).
struct LatentAttentionParams {
  PagedLatents cache;
  const float* q_latent;  // [T, H, L]
  // The rotated part of head h of row t is the R floats from t * q_rope_row_stride + h *
  // q_rope_head_stride on.
  const float* q_rope;
  uint32_t q_rope_row_stride;
  uint32_t q_rope_head_stride;
  uint32_t num_heads;  // H
  float scale;
  std::span<const SequenceRows> sequences;
  float* y;  // [T, H, L]
};
void LatentAttention(const LatentAttentionParams& params, Stream& stream);

}  // namespace essor::kernels
