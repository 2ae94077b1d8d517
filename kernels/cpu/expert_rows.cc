#include "kernels/expert_rows.h"

#include <algorithm>
#include <cstring>

#include "common/float16.h"
#include "kernels/cpu/linear_driver.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

// Values below which a fork costs more than it saves.
constexpr uint64_t kForkValues = 32 * 1024;

// Rows from which an operation on rows of `width` values is worth a fork.
uint64_t ForkRows(uint32_t width) { return kForkValues / std::max(width, 1u) + 1; }

void RoundRow(const float* x, uint32_t width, std::byte* y) {
  for (uint32_t i = 0; i < width; ++i) {
    const uint16_t bits = ToBFloat16(x[i]).bits;
    std::memcpy(y + size_t{i} * sizeof(bits), &bits, sizeof(bits));
  }
}

// Tile by tile, with the operations of the FFNs' own combination.
void CombineRow(const CombineExpertsParams& params, const LinearKernels& kernels, uint64_t t) {
  for (uint32_t first = 0; first < params.width; first += kTileRows) {
    const uint32_t count = std::min(kTileRows, params.width - first);
    alignas(64) float sum[kTileRows] = {};
    for (uint64_t place = t * params.top_k; place < (t + 1) * params.top_k; ++place) {
      const uint32_t* ids = params.row_ids + place * params.num_slices;
      alignas(64) float output[kTileRows] = {};
      std::copy_n(params.rows + size_t{ids[0]} * params.width + first, count, output);
      for (uint32_t s = 1; s < params.num_slices; ++s) {
        alignas(64) float slice[kTileRows] = {};
        std::copy_n(params.rows + size_t{ids[s]} * params.width + first, count, slice);
        kernels.add_scaled(output, slice, 1.0f);
      }
      kernels.add_scaled(sum, output,
                         params.expert_weights == nullptr ? 1.0f : params.expert_weights[place]);
    }
    std::copy_n(sum, count, params.y + t * params.width + first);
  }
}

}  // namespace

void GatherRows(const GatherRowsParams& params, Stream& stream) {
  const size_t row_bytes = size_t{params.width} * (params.bfloat16 ? 2 : 4);
  ParallelRange(AsCpuStream(stream).pool(), params.num_rows, ForkRows(params.width),
                [&](uint64_t begin, uint64_t end) {
                  for (uint64_t i = begin; i < end; ++i) {
                    const float* x = params.x + size_t{params.row_ids[i]} * params.width;
                    std::byte* y = params.y + i * row_bytes;
                    if (params.bfloat16) {
                      RoundRow(x, params.width, y);
                    } else {
                      std::memcpy(y, x, row_bytes);
                    }
                  }
                });
}

void WidenBFloat16(const std::byte* x, float* y, uint64_t count, Stream& stream) {
  ParallelRange(AsCpuStream(stream).pool(), count, kForkValues, [&](uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; ++i) {
      BFloat16 value;
      std::memcpy(&value.bits, x + i * sizeof(value.bits), sizeof(value.bits));
      y[i] = ToFloat(value);
    }
  });
}

void CombineExperts(const CombineExpertsParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) {
    reference::CombineExperts(params);
    return;
  }
  const LinearKernels& kernels = LinearKernelsOf(cpu.isa());
  ParallelRange(cpu.pool(), params.num_rows, ForkRows(params.width * params.top_k),
                [&](uint64_t begin, uint64_t end) {
                  for (uint64_t t = begin; t < end; ++t) CombineRow(params, kernels, t);
                });
}

}  // namespace essor::kernels
