#include "kernels/latent_attention.h"

#include <cstring>

#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/reference/latent_attention.h"

namespace essor::kernels {
namespace {

// `count` floats to element `offset` of the cache.
void StoreElements(const PagedLatents& cache, size_t offset, const float* from, uint32_t count,
                   const RowKernels& kernels) {
  if (cache.fp32) {
    std::memcpy(static_cast<float*>(cache.data) + offset, from, count * sizeof(float));
  } else {
    kernels.store_bf16(static_cast<uint16_t*>(cache.data) + offset, from, count);
  }
}

AttentionCall CallOf(const LatentAttentionParams& params) {
  const PagedLatents& cache = params.cache;
  return {.keys = nullptr,
          .values = cache.data,
          .fp32 = cache.fp32,
          .block_tokens = cache.block_tokens,
          .num_kv_heads = 1,
          .key_dim = cache.latent_dim + cache.rope_dim,
          .value_dim = cache.latent_dim,
          .queries = {{.data = params.q_latent,
                       .dim = cache.latent_dim,
                       .row_stride = params.num_heads * cache.latent_dim,
                       .head_stride = cache.latent_dim},
                      {.data = params.q_rope,
                       .dim = cache.rope_dim,
                       .row_stride = params.q_rope_row_stride,
                       .head_stride = params.q_rope_head_stride}},
          .num_heads = params.num_heads,
          .scale = params.scale,
          .sliding_window = 0,
          .chunk_size = 0,
          .sequences = params.sequences,
          .y = params.y};
}

}  // namespace

void WriteLatents(const WriteLatentsParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::WriteLatents(params);
  const RowKernels& kernels = RowKernelsFor(cpu.isa());
  const PagedLatents& cache = params.cache;
  const uint32_t width = cache.latent_dim + cache.rope_dim;
  const auto store = [&](size_t row, size_t block, uint32_t slot) {
    const size_t offset = (block * cache.block_tokens + slot) * width;
    StoreElements(cache, offset, params.latents + row * cache.latent_dim, cache.latent_dim,
                  kernels);
    StoreElements(cache, offset + cache.latent_dim, params.rope_keys + row * cache.rope_dim,
                  cache.rope_dim, kernels);
  };
  ParallelRange(cpu.pool(), NumRows(params.sequences), kStoredElementsForFork / (width + 1) + 2,
                [&](uint64_t begin, uint64_t end) {
                  ForEachCacheSlot(params.sequences, cache.block_tokens, begin, end, store);
                });
}

void LatentAttention(const LatentAttentionParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::LatentAttention(params);
  RunAttention(CallOf(params), cpu);
}

}  // namespace essor::kernels
