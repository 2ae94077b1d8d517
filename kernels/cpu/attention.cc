#include "kernels/attention.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/reference/attention.h"

namespace essor::kernels {
namespace {

// Well above the 256 of any model known; a row of a head on the stack.
constexpr uint32_t kMaxHeadDim = 1024;

// The key and the value of one row and head into slot `slot` of their block. `bf16` is scratch of
// D.
void StoreSlot(const PagedKv& cache, size_t block_offset, uint32_t slot, const float* k,
               const float* v, const RowKernels& kernels, uint16_t* bf16) {
  const uint32_t dim = cache.head_dim;
  const size_t value_offset = block_offset + size_t{slot} * dim;
  if (cache.fp32) {
    float* keys = static_cast<float*>(cache.k) + block_offset + slot;
    for (uint32_t d = 0; d < dim; ++d) keys[size_t{d} * cache.block_tokens] = k[d];
    std::memcpy(static_cast<float*>(cache.v) + value_offset, v, dim * sizeof(float));
    return;
  }
  uint16_t* keys = static_cast<uint16_t*>(cache.k) + block_offset + slot;
  kernels.store_bf16(bf16, k, dim);
  for (uint32_t d = 0; d < dim; ++d) keys[size_t{d} * cache.block_tokens] = bf16[d];
  kernels.store_bf16(static_cast<uint16_t*>(cache.v) + value_offset, v, dim);
}

// Rows [begin, end) of all sequences' rows counted together.
void WriteKvRows(const WriteKvParams& params, const RowKernels& kernels, uint64_t begin,
                 uint64_t end) {
  const PagedKv& cache = params.cache;
  const size_t dim = cache.head_dim;
  uint16_t bf16[kMaxHeadDim];
  ForEachCacheSlot(params.sequences, cache.block_tokens, begin, end,
                   [&](size_t row, size_t block, uint32_t slot) {
                     for (uint32_t h = 0; h < cache.num_kv_heads; ++h) {
                       const size_t head = block * cache.num_kv_heads + h;
                       StoreSlot(cache, head * cache.block_tokens * dim, slot,
                                 params.k + row * params.k_stride + h * dim,
                                 params.v + row * params.v_stride + h * dim, kernels, bf16);
                     }
                   });
}

AttentionCall CallOf(const AttentionParams& params) {
  const PagedKv& cache = params.cache;
  return {.keys = cache.k,
          .values = cache.v,
          .fp32 = cache.fp32,
          .block_tokens = cache.block_tokens,
          .num_kv_heads = cache.num_kv_heads,
          .key_dim = cache.head_dim,
          .value_dim = cache.head_dim,
          .queries = {{.data = params.q,
                       .dim = cache.head_dim,
                       .row_stride = params.q_stride,
                       .head_stride =
                           params.q_head_stride == 0 ? cache.head_dim : params.q_head_stride},
                      {}},
          .num_heads = params.num_heads,
          .scale = params.scale,
          .sliding_window = params.sliding_window,
          .chunk_size = params.chunk_size,
          .sinks = params.sinks,
          .sequences = params.sequences,
          .y = params.y};
}

}  // namespace

void WriteKv(const WriteKvParams& params, Stream& stream) {
  ESSOR_CHECK(params.cache.head_dim <= kMaxHeadDim);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::WriteKv(params);
  const RowKernels& kernels = RowKernelsFor(cpu.isa());
  const uint64_t row_elements = uint64_t{params.cache.num_kv_heads} * params.cache.head_dim * 2;
  ParallelRange(cpu.pool(), NumRows(params.sequences),
                kStoredElementsForFork / (row_elements + 1) + 2,
                [&](uint64_t begin, uint64_t end) { WriteKvRows(params, kernels, begin, end); });
}

void Attention(const AttentionParams& params, Stream& stream) {
  ESSOR_CHECK(params.sliding_window == 0 || params.chunk_size == 0);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::Attention(params);
  RunAttention(CallOf(params), cpu);
}

}  // namespace essor::kernels
