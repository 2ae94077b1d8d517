#include "kernels/latent_attention.h"

#include <cstddef>

#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/store_vector.h"
#include "kernels/reference/latent_attention.h"

namespace essor::kernels {
namespace {

void StoreRow(const PagedLatents& cache, std::byte* row, const float* latent, const float* rope_key,
              const RowKernels& kernels) {
  const KvType rope_type = UnquantisedType(cache.type);
  std::byte* latent_at = row;
  std::byte* rope_at = row + size_t{cache.latent_dim} * ElementBytes(cache.type);
  if (IsQuantised(cache.type)) {
    rope_at = row + ScaleBytes(cache.type);
    latent_at = rope_at + size_t{cache.rope_dim} * ElementBytes(rope_type);
  }
  StoreVector(kernels, cache.type, {latent, cache.latent_dim}, latent_at, row);
  StoreVector(kernels, rope_type, {rope_key, cache.rope_dim}, rope_at, nullptr);
}

AttentionCall CallOf(const LatentAttentionParams& params) {
  const PagedLatents& cache = params.cache;
  return {.keys = nullptr,
          .values = cache.data,
          .type = cache.type,
          .block_bytes = cache.block_bytes(),
          .value_stride = static_cast<uint32_t>(cache.row_bytes() / ElementBytes(cache.type)),
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
  const auto store = [&](size_t row, uint32_t block, uint32_t slot) {
    StoreRow(cache,
             static_cast<std::byte*>(cache.data) + block * cache.block_bytes() +
                 slot * cache.row_bytes(),
             params.latents + row * cache.latent_dim, params.rope_keys + row * cache.rope_dim,
             kernels);
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
