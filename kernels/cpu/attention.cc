#include "kernels/attention.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/store_vector.h"
#include "kernels/reference/attention.h"

namespace essor::kernels {
namespace {

// Well above the 256 of any model known; a row of a head on the stack.
constexpr uint32_t kMaxHeadDim = 1024;

// `count` elements of `Bytes` bytes, side by side, to places `stride` elements apart.
template <size_t Bytes>
void Scatter(const std::byte* from, uint32_t count, size_t stride, std::byte* to) {
  for (uint32_t i = 0; i < count; ++i) {
    std::memcpy(to + i * stride * Bytes, from + i * Bytes, Bytes);
  }
}

void Scatter(const std::byte* from, uint32_t count, size_t stride, KvType type, std::byte* to) {
  switch (ElementBytes(type)) {
    case 4:
      return Scatter<4>(from, count, stride, to);
    case 2:
      return Scatter<2>(from, count, stride, to);
    default:
      return Scatter<1>(from, count, stride, to);
  }
}

// A KV head's slot in a block.
struct Slot {
  uint32_t block;
  uint32_t head;
  uint32_t slot;
};

// The key and the value of one row and head.
void StoreSlot(const PagedKv& cache, const Slot& at, const float* k, const float* v,
               const RowKernels& kernels) {
  const uint32_t dim = cache.head_dim;
  const uint32_t element_bytes = ElementBytes(cache.type);
  const size_t head = size_t{at.head} * cache.block_tokens * dim;
  const size_t scale = size_t{cache.num_kv_heads} * cache.block_tokens * dim * element_bytes +
                       (size_t{at.head} * cache.block_tokens + at.slot) * sizeof(float);
  std::byte* const keys = static_cast<std::byte*>(cache.k) + at.block * cache.block_bytes();
  std::byte* const values = static_cast<std::byte*>(cache.v) + at.block * cache.block_bytes();
  alignas(float) std::byte key[kMaxHeadDim * sizeof(float)];
  StoreVector(kernels, cache.type, {k, dim}, key, keys + scale);
  Scatter(key, dim, cache.block_tokens, cache.type, keys + (head + at.slot) * element_bytes);
  StoreVector(kernels, cache.type, {v, dim},
              values + (head + size_t{at.slot} * dim) * element_bytes, values + scale);
}

// Rows [begin, end) of all sequences' rows counted together.
void WriteKvRows(const WriteKvParams& params, const RowKernels& kernels, uint64_t begin,
                 uint64_t end) {
  const PagedKv& cache = params.cache;
  const size_t dim = cache.head_dim;
  ForEachCacheSlot(params.sequences, cache.block_tokens, begin, end,
                   [&](size_t row, uint32_t block, uint32_t slot) {
                     for (uint32_t h = 0; h < cache.num_kv_heads; ++h) {
                       StoreSlot(cache, {block, h, slot},
                                 params.k + row * params.k_stride + h * dim,
                                 params.v + row * params.v_stride + h * dim, kernels);
                     }
                   });
}

AttentionCall CallOf(const AttentionParams& params) {
  const PagedKv& cache = params.cache;
  return {.keys = cache.k,
          .values = cache.v,
          .type = cache.type,
          .block_bytes = cache.block_bytes(),
          .value_stride = cache.head_dim,
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
