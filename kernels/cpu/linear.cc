#include "kernels/linear.h"

#include <array>
#include <numeric>

#include "common/check.h"
#include "kernels/cpu/linear_driver.h"
#include "kernels/cpu/pack_layout.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

// x once per kind of panel that the outputs need.
struct Activations {
  std::array<std::byte*, kNumPanelKinds> panels{};  // null where no output needs the kind
  PanelSplit split;
  uint32_t k;

  const std::byte* Panel(PanelKind kind, uint32_t first_row) const {
    return panels[static_cast<uint32_t>(kind)] + first_row * PanelRowBytes(kind, k);
  }
};

uint32_t InputsOf(const LinearParams& params) {
  const uint32_t k = params.outputs[0].weight.k;
  for (const LinearOutput& output : params.outputs) ESSOR_CHECK(output.weight.k == k);
  return k;
}

Activations PackActivations(const LinearParams& params, const LinearKernels& kernels,
                            CpuStream& stream) {
  std::array<bool, kNumPanelKinds> needed{};
  uint32_t max_rows = kMaxPanelRows;
  for (const LinearOutput& output : params.outputs) {
    const auto kind = static_cast<uint32_t>(PanelKindOf(output.weight.format));
    needed[kind] = true;
    max_rows = std::min(max_rows, kernels.max_rows[kind]);
  }
  Activations result{.split = PanelSplit(params.num_rows, max_rows), .k = InputsOf(params)};

  std::array<size_t, kNumPanelKinds> bytes{};
  for (uint32_t kind = 0; kind < kNumPanelKinds; ++kind) {
    if (!needed[kind]) continue;
    bytes[kind] = AlignUp(params.num_rows * PanelRowBytes(static_cast<PanelKind>(kind), result.k));
  }
  std::byte* place = stream.Workspace(std::accumulate(bytes.begin(), bytes.end(), size_t{0}));
  for (uint32_t kind = 0; kind < kNumPanelKinds; ++kind) {
    if (needed[kind]) result.panels[kind] = place;
    place += bytes[kind];
  }

  const auto pack = [&](uint64_t begin, uint64_t end) {
    for (auto panel = static_cast<uint32_t>(begin); panel < end; ++panel) {
      const RowRange range = result.split.Panel(panel);
      std::array<const float*, kMaxPanelRows> rows;
      for (uint32_t r = 0; r < range.count; ++r) {
        rows[r] = params.x + size_t{range.first + r} * params.x_stride;
      }
      for (uint32_t kind = 0; kind < kNumPanelKinds; ++kind) {
        if (!needed[kind]) continue;
        const size_t offset = range.first * PanelRowBytes(static_cast<PanelKind>(kind), result.k);
        kernels.pack_panel[kind](rows.data(), range.count, result.k, result.panels[kind] + offset);
      }
    }
  };
  const uint64_t panel_elements = uint64_t{max_rows} * result.k;
  ParallelRange(stream.pool(), result.split.num_panels(),
                (kPackFork + panel_elements - 1) / std::max<uint64_t>(panel_elements, 1), pack);
  return result;
}

// Rows of one tile's products to y.
void StoreTile(const LinearOutput& output, uint32_t tile, RowRange rows, const float* products) {
  const uint32_t first = tile * kTileRows;
  const uint32_t count = std::min(kTileRows, output.weight.n - first);
  for (uint32_t r = 0; r < rows.count; ++r, products += kTileRows) {
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
  const uint32_t group = TilesPerUnit(tiles, TileBytes(output.weight.format, output.weight.k),
                                      num_threads, num_panels);
  return {group, (tiles + group - 1) / group};
}

void RunUnit(const LinearOutput& output, const Activations& x, const LinearKernels& kernels,
             uint32_t first_tile, uint32_t end_tile) {
  alignas(64) float products[kMaxPanelRows * kTileRows];
  const size_t tile_bytes = TileBytes(output.weight.format, output.weight.k);
  const size_t unit_bytes = (end_tile - first_tile) * tile_bytes;
  for (uint32_t panel = 0; panel < x.split.num_panels(); ++panel) {
    const RowRange rows = x.split.Panel(panel);
    const std::byte* data = x.Panel(PanelKindOf(output.weight.format), rows.first);
    const auto multiply = kernels.MultiplyOf(output.weight.format, rows.count);
    for (uint32_t tile = first_tile; tile < end_tile; ++tile) {
      const std::byte* weights = TileOf(output.weight, tile);
      multiply(
          {.tile = weights,
           .panel = data,
           .k = x.k,
           .out = products,
           .prefetch = PrefetchOf(weights + unit_bytes, tile_bytes, panel, x.split.num_panels())});
      StoreTile(output, tile, rows, products);
    }
  }
}

}  // namespace

size_t LinearWorkspaceBytes(WeightFormat format, uint32_t k, uint32_t max_rows) {
  return AlignUp(max_rows * PanelRowBytes(PanelKindOf(format), k));
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
