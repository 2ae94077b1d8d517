#include "kernels/linear.h"

#include <array>
#include <numeric>

#include "common/check.h"
#include "kernels/cpu/bfloat16_rest.h"
#include "kernels/cpu/linear_driver.h"
#include "kernels/cpu/pack_layout.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

constexpr auto kBF16Panels = static_cast<uint32_t>(PanelKind::kBF16);

// x once per kind of panel that the outputs need.
struct Activations {
  std::array<std::byte*, kNumPanelKinds> panels{};  // null where no output needs the kind
  // Panel rows per row of x: 2 where x is split into a bfloat16 value and the rest of it.
  std::array<uint32_t, kNumPanelKinds> parts{};
  PanelSplit split;
  uint32_t k;

  uint32_t Parts(PanelKind kind) const { return parts[static_cast<uint32_t>(kind)]; }
  const std::byte* Panel(PanelKind kind, uint32_t first_row) const {
    return panels[static_cast<uint32_t>(kind)] + first_row * Parts(kind) * PanelRowBytes(kind, k);
  }
};

uint32_t InputsOf(const LinearParams& params) {
  const uint32_t k = params.outputs[0].weight.k;
  for (const LinearOutput& output : params.outputs) ESSOR_CHECK(output.weight.k == k);
  return k;
}

Activations PackActivations(const LinearParams& params, const LinearKernels& kernels,
                            CpuStream& stream) {
  std::array<uint32_t, kNumPanelKinds> parts{};
  uint32_t max_rows = kMaxPanelRows;
  for (const LinearOutput& output : params.outputs) {
    const auto kind = static_cast<uint32_t>(PanelKindOf(output.weight.format));
    parts[kind] = params.split_x && kind == kBF16Panels ? 2 : 1;
    max_rows = std::min(max_rows, std::max(kernels.max_rows[kind] / parts[kind], 1u));
  }
  Activations result{
      .parts = parts, .split = PanelSplit(params.num_rows, max_rows), .k = InputsOf(params)};

  std::array<size_t, kNumPanelKinds> bytes{};
  for (uint32_t kind = 0; kind < kNumPanelKinds; ++kind) {
    bytes[kind] = AlignUp(params.num_rows * parts[kind] *
                          PanelRowBytes(static_cast<PanelKind>(kind), result.k));
  }
  const size_t rest_bytes =
      parts[kBF16Panels] == 2 ? size_t{params.num_rows} * result.k * sizeof(float) : 0;
  std::byte* place =
      stream.Workspace(std::accumulate(bytes.begin(), bytes.end(), AlignUp(rest_bytes)));
  auto* const rest = reinterpret_cast<float*>(place);
  place += AlignUp(rest_bytes);
  for (uint32_t kind = 0; kind < kNumPanelKinds; ++kind) {
    if (parts[kind] > 0) result.panels[kind] = place;
    place += bytes[kind];
  }

  const auto pack = [&](uint64_t begin, uint64_t end) {
    for (auto panel = static_cast<uint32_t>(begin); panel < end; ++panel) {
      const RowRange range = result.split.Panel(panel);
      for (uint32_t kind = 0; kind < kNumPanelKinds; ++kind) {
        if (parts[kind] == 0) continue;
        std::array<const float*, kMaxPanelRows> rows;
        for (uint32_t r = 0; r < range.count; ++r) {
          const size_t row = range.first + r;
          const float* x = params.x + row * params.x_stride;
          rows[r * parts[kind]] = x;
          if (parts[kind] == 1) continue;
          RestOfBFloat16(x, result.k, rest + row * result.k);
          rows[2 * r + 1] = rest + row * result.k;
        }
        const size_t offset =
            range.first * parts[kind] * PanelRowBytes(static_cast<PanelKind>(kind), result.k);
        kernels.pack_panel[kind](rows.data(), /*factors=*/nullptr, range.count * parts[kind],
                                 result.k, result.panels[kind] + offset);
      }
    }
  };
  const uint64_t panel_elements = uint64_t{max_rows} * result.k;
  ParallelRange(stream.pool(), result.split.num_panels(),
                (kPackFork + panel_elements - 1) / std::max<uint64_t>(panel_elements, 1), pack);
  return result;
}

// Rows of one tile's products to y; `parts` rows of products make one of y.
void StoreTile(const LinearOutput& output, uint32_t tile, RowRange rows, uint32_t parts,
               float* products) {
  const uint32_t first = tile * kTileRows;
  const uint32_t count = std::min(kTileRows, output.weight.n - first);
  for (uint32_t r = 0; r < rows.count; ++r, products += parts * kTileRows) {
    if (parts == 2) {
      for (uint32_t i = 0; i < count; ++i) products[i] += products[kTileRows + i];
    }
    float* y = output.y + size_t{rows.first + r} * output.y_stride + first;
    for (uint32_t i = 0; i < count; ++i) {
      const float value = products[i] + (output.bias == nullptr ? 0.0f : output.bias[first + i]);
      y[i] = output.accumulate ? y[i] + value : value;
    }
  }
}

// Units of one output: groups of tiles.
struct OutputUnits {
  uint32_t tiles_per_unit;
  uint32_t num_units;
};

OutputUnits UnitsOf(const LinearOutput& output, uint32_t num_threads, uint32_t num_panels) {
  const uint32_t tiles = NumTiles(output.weight.n);
  const uint32_t group = TilesPerUnit(tiles, TileBytes(output.weight), num_threads, num_panels);
  return {group, (tiles + group - 1) / group};
}

void RunUnit(const LinearOutput& output, const Activations& x, const LinearKernels& kernels,
             uint32_t first_tile, uint32_t end_tile) {
  alignas(64) float products[kMaxPanelRows * kTileRows];
  const size_t tile_bytes = TileBytes(output.weight);
  const size_t unit_bytes = (end_tile - first_tile) * tile_bytes;
  for (uint32_t panel = 0; panel < x.split.num_panels(); ++panel) {
    const RowRange rows = x.split.Panel(panel);
    const PanelKind kind = PanelKindOf(output.weight.format);
    const std::byte* data = x.Panel(kind, rows.first);
    const auto multiply = kernels.MultiplyOf(output.weight.format, rows.count * x.Parts(kind));
    for (uint32_t tile = first_tile; tile < end_tile; ++tile) {
      const std::byte* weights = TileOf(output.weight, tile);
      multiply({.tile = weights,
                .panel = data,
                .k = x.k,
                .block_offset = output.weight.block_offset,
                .out = products,
                .prefetch = PrefetchOf(output.weight.format, weights, weights + unit_bytes,
                                       tile_bytes, panel, x.split.num_panels())});
      StoreTile(output, tile, rows, x.Parts(kind), products);
    }
  }
}

}  // namespace

size_t LinearWorkspaceBytes(WeightFormat format, uint32_t k, uint32_t max_rows, bool split_x) {
  const size_t row_bytes = PanelRowBytes(PanelKindOf(format), k);
  if (!split_x || PanelKindOf(format) != PanelKind::kBF16) return AlignUp(max_rows * row_bytes);
  return AlignUp(2 * max_rows * row_bytes) + AlignUp(size_t{max_rows} * k * sizeof(float));
}

void Linear(const LinearParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (params.num_rows == 0 || params.outputs.empty()) return;
  if (cpu.isa() == CpuIsa::kReference) {
    reference::Linear(params);
    return;
  }
  const LinearKernels& kernels = LinearKernelsOf(cpu.isa());
  const Activations x = PackActivations(params, kernels, cpu);
  const uint32_t num_threads = cpu.pool().num_threads();
  const uint32_t num_panels = x.split.num_panels();

  uint32_t num_units = 0;
  for (const LinearOutput& output : params.outputs) {
    num_units += UnitsOf(output, num_threads, num_panels).num_units;
  }
  ParallelUnits(cpu.pool(), num_units, [&](uint32_t /*thread*/, uint32_t unit) {
    for (const LinearOutput& output : params.outputs) {
      const OutputUnits units = UnitsOf(output, num_threads, num_panels);
      if (unit >= units.num_units) {
        unit -= units.num_units;
        continue;
      }
      const uint32_t first = unit * units.tiles_per_unit;
      RunUnit(output, x, kernels, first,
              std::min(first + units.tiles_per_unit, NumTiles(output.weight.n)));
      return;
    }
  });
}

}  // namespace essor::kernels
