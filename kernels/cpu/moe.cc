// Gated FFNs, one or many: a dense FFN is an MoE of one expert that every token chose with
// weight 1.
//
// Rows are the (token, j) pairs whose expert is present, sorted by expert; a *slot* is a row's
// index in that order, a *place* its t * top_k + j. Three parallel phases: x into panels; gate, up
// and activation tile by tile, straight into the panels of the down product; down product, and
// combine unless the rows themselves are asked for.
#include <array>
#include <numeric>

#include "common/check.h"
#include "kernels/cpu/linear_driver.h"
#include "kernels/cpu/pack_layout.h"
#include "kernels/linear.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

constexpr uint32_t kAbsent = 0xffffffffu;

struct FfnPanel {
  uint32_t first_slot;
  uint32_t num_rows;
};

// An expert that has rows, and its panels.
struct ActiveExpert {
  uint32_t index;
  uint32_t first_panel;
  uint32_t end_panel;
};

// Cuts the workspace into arrays, each on its own cache lines. Without a base it only counts.
class WorkspaceCutter {
 public:
  explicit WorkspaceCutter(std::byte* base) : base_(base) {}

  template <typename T>
  T* Take(size_t count) {
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += AlignUp(count * sizeof(T));
    return array;
  }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  size_t bytes_ = 0;
};

struct Workspace {
  uint32_t* slot_of_place;  // [T * top_k] or kAbsent
  uint32_t* place_of_slot;  // [rows]
  uint32_t* next_slot;      // [E]
  ActiveExpert* active;     // [E]
  FfnPanel* panels;         // [rows]
  std::byte* x;             // panels of x
  std::byte* hidden;        // panels of the activations
  float* products;          // [threads][rows][32], of one tile of the down product
};

// Panel rows of the down product per row: a bfloat16 hidden value and what its rounding left over.
// The hidden values are the products of two activations and have the widest range of all, so that
// their rounding to 8 bits would be the largest error of a whole layer.
uint32_t HiddenParts(WeightFormat down) { return PanelKindOf(down) == PanelKind::kBF16 ? 2 : 1; }

Workspace CutWorkspace(const FfnShape& shape, uint32_t num_tokens, uint32_t num_threads,
                       WorkspaceCutter& cutter) {
  const size_t rows = size_t{num_tokens} * shape.top_k;
  const PanelKind gate_kind = PanelKindOf(shape.gate_up_format);
  const PanelKind down_kind = PanelKindOf(shape.down_format);
  const size_t parts = HiddenParts(shape.down_format);
  return {
      .slot_of_place = cutter.Take<uint32_t>(rows),
      .place_of_slot = cutter.Take<uint32_t>(rows),
      .next_slot = cutter.Take<uint32_t>(shape.num_experts),
      .active = cutter.Take<ActiveExpert>(shape.num_experts),
      .panels = cutter.Take<FfnPanel>(rows),
      .x = cutter.Take<std::byte>(rows * PanelRowBytes(gate_kind, shape.hidden)),
      .hidden = cutter.Take<std::byte>(rows * parts * PanelRowBytes(down_kind, shape.intermediate)),
      .products = cutter.Take<float>(num_threads * rows * parts * kTileRows)};
}

FfnShape ShapeOf(const MoeFfnParams& params) {
  ESSOR_CHECK(!params.experts.empty());
  const GatedFfnWeights& first = params.experts[0];
  ESSOR_CHECK(first.gate.format == first.up.format && first.gate.n == first.up.n &&
              first.gate.k == first.up.k && first.down.k == first.gate.n);
  for (const GatedFfnWeights& expert : params.experts) {
    ESSOR_CHECK(expert.gate.format == first.gate.format && expert.up.format == first.up.format &&
                expert.down.format == first.down.format &&
                expert.down.block_offset == first.down.block_offset);
  }
  return {.gate_up_format = first.gate.format,
          .down_format = first.down.format,
          .hidden = first.gate.k,
          .intermediate = first.gate.n,
          .num_experts = static_cast<uint32_t>(params.experts.size()),
          .top_k = params.top_k};
}

// What becomes of the experts' outputs.
enum class Outputs { kSum, kRows };

// One call's work, after sorting.
class FfnRun {
 public:
  FfnRun(const MoeFfnParams& params, Outputs outputs, CpuStream& stream)
      : params_(params),
        outputs_(outputs),
        shape_(ShapeOf(params)),
        kernels_(LinearKernelsOf(stream.isa())),
        pool_(stream.pool()),
        gate_kind_(PanelKindOf(shape_.gate_up_format)),
        down_kind_(PanelKindOf(shape_.down_format)),
        parts_(HiddenParts(shape_.down_format)) {
    WorkspaceCutter counter(nullptr);
    CutWorkspace(shape_, params.num_rows, pool_.num_threads(), counter);
    WorkspaceCutter cutter(stream.Workspace(counter.bytes()));
    space_ = CutWorkspace(shape_, params.num_rows, pool_.num_threads(), cutter);
  }

  void Run() {
    SortRows();
    MakePanels();
    PackInputs();
    RunGateUp();
    RunDown();
  }

 private:
  uint32_t NumPlaces() const { return params_.num_rows * params_.top_k; }

  // Index into `experts` of a place's expert, kAbsent where it is not here.
  uint32_t ExpertAt(uint32_t place) const {
    if (params_.expert_ids == nullptr) return 0;
    // Unsigned: an expert before the first one present is far beyond the last one too.
    const uint32_t expert = params_.expert_ids[place] - params_.first_expert;
    return expert < params_.experts.size() ? expert : kAbsent;
  }

  // Counting sort by expert; within an expert in the order of places.
  void SortRows() {
    std::fill_n(space_.next_slot, shape_.num_experts, 0u);
    for (uint32_t place = 0; place < NumPlaces(); ++place) {
      const uint32_t expert = ExpertAt(place);
      if (expert != kAbsent) ++space_.next_slot[expert];
    }
    std::exclusive_scan(space_.next_slot, space_.next_slot + shape_.num_experts, space_.next_slot,
                        0u);
    for (uint32_t place = 0; place < NumPlaces(); ++place) {
      const uint32_t expert = ExpertAt(place);
      space_.slot_of_place[place] = kAbsent;
      if (expert == kAbsent) continue;
      const uint32_t slot = space_.next_slot[expert]++;
      space_.slot_of_place[place] = slot;
      space_.place_of_slot[slot] = place;
    }
  }

  uint32_t HiddenRowsMax() const { return kernels_.max_rows[static_cast<uint32_t>(down_kind_)]; }

  void MakePanels() {
    const uint32_t max_rows = std::min(kernels_.max_rows[static_cast<uint32_t>(gate_kind_)],
                                       std::max(HiddenRowsMax() / parts_, 1u));
    uint32_t first_slot = 0;
    for (uint32_t expert = 0; expert < shape_.num_experts; ++expert) {
      const uint32_t end_slot = space_.next_slot[expert];  // of this expert, after the sort
      if (end_slot == first_slot) continue;
      const PanelSplit split(end_slot - first_slot, max_rows);
      space_.active[num_active_++] = {expert, num_panels_, num_panels_ + split.num_panels()};
      for (uint32_t i = 0; i < split.num_panels(); ++i) {
        const RowRange range = split.Panel(i);
        space_.panels[num_panels_++] = {first_slot + range.first, range.count};
      }
      first_slot = end_slot;
    }
  }

  // A single token's panels are all the same: the first one serves every expert.
  bool SharedInput() const { return params_.num_rows == 1 && !params_.weigh_input; }

  std::byte* InputPanel(const FfnPanel& panel) const {
    const uint32_t slot = SharedInput() ? 0 : panel.first_slot;
    return space_.x + slot * PanelRowBytes(gate_kind_, shape_.hidden);
  }
  std::byte* HiddenPanel(const FfnPanel& panel) const {
    return space_.hidden +
           panel.first_slot * parts_ * PanelRowBytes(down_kind_, shape_.intermediate);
  }

  void PackInputs() {
    const auto pack = kernels_.pack_panel[static_cast<uint32_t>(gate_kind_)];
    const uint32_t count = SharedInput() ? std::min(num_panels_, 1u) : num_panels_;
    const auto pack_range = [&](uint64_t begin, uint64_t end) {
      for (uint64_t i = begin; i < end; ++i) {
        const FfnPanel& panel = space_.panels[i];
        std::array<const float*, kMaxPanelRows> rows;
        std::array<float, kMaxPanelRows> factors;
        for (uint32_t r = 0; r < panel.num_rows; ++r) {
          const uint32_t place = space_.place_of_slot[panel.first_slot + r];
          rows[r] = params_.x + size_t{place / params_.top_k} * shape_.hidden;
          if (params_.weigh_input) factors[r] = params_.expert_weights[place];
        }
        pack(rows.data(), params_.weigh_input ? factors.data() : nullptr, panel.num_rows,
             shape_.hidden, InputPanel(panel));
      }
    };
    const bool fork = uint64_t{NumPlaces()} * shape_.hidden >= kPackFork;
    ParallelRange(pool_, count, fork ? 2 : count + 1, pack_range);
  }

  void RunGateUp() {
    const uint32_t tiles = NumTiles(shape_.intermediate);
    const size_t bytes = 2 * TileBytes(params_.experts[0].gate);
    const uint32_t group =
        std::min(tiles, TilesPerUnit(num_active_ * tiles, bytes, pool_.num_threads(),
                                     num_panels_ > num_active_ ? 2 : 1));
    const uint32_t units = (tiles + group - 1) / group;
    ParallelUnits(pool_, num_active_ * units, [&](uint32_t /*thread*/, uint32_t unit) {
      const uint32_t first_tile = unit % units * group;
      GateUpUnit(space_.active[unit / units], first_tile, std::min(first_tile + group, tiles));
    });
  }

  // bias[first ...] to every row of a tile's products; a null bias is nothing.
  static void AddBias(const float* bias, uint32_t first, uint32_t n, uint32_t num_rows,
                      float* products) {
    if (bias == nullptr) return;
    const uint32_t count = std::min(kTileRows, n - first);
    for (uint32_t r = 0; r < num_rows; ++r, products += kTileRows) {
      for (uint32_t i = 0; i < count; ++i) products[i] += bias[first + i];
    }
  }

  void GateUpUnit(const ActiveExpert& expert, uint32_t first_tile, uint32_t end_tile) {
    alignas(64) float gate[kMaxPanelRows * kTileRows];
    alignas(64) float up[kMaxPanelRows * kTileRows];
    const GatedFfnWeights& weights = params_.experts[expert.index];
    const auto pack_hidden = kernels_.pack_hidden[static_cast<uint32_t>(down_kind_)];
    const size_t tile_bytes = TileBytes(weights.gate);
    const size_t ahead = (end_tile - first_tile) * tile_bytes;
    const uint32_t num_panels = expert.end_panel - expert.first_panel;
    for (uint32_t i = expert.first_panel; i < expert.end_panel; ++i) {
      const FfnPanel& panel = space_.panels[i];
      const std::byte* x = InputPanel(panel);
      const auto multiply = kernels_.MultiplyOf(shape_.gate_up_format, panel.num_rows);
      for (uint32_t tile = first_tile; tile < end_tile; ++tile) {
        const std::byte* gate_tile = TileOf(weights.gate, tile);
        const std::byte* up_tile = TileOf(weights.up, tile);
        const uint32_t at = i - expert.first_panel;
        multiply({.tile = gate_tile,
                  .panel = x,
                  .k = shape_.hidden,
                  .block_offset = weights.gate.block_offset,
                  .out = gate,
                  .prefetch = PrefetchOf(shape_.gate_up_format, gate_tile, gate_tile + ahead,
                                         tile_bytes, at, num_panels)});
        multiply({.tile = up_tile,
                  .panel = x,
                  .k = shape_.hidden,
                  .block_offset = weights.up.block_offset,
                  .out = up,
                  .prefetch = PrefetchOf(shape_.gate_up_format, up_tile, up_tile + ahead,
                                         tile_bytes, at, num_panels)});
        const uint32_t column = tile * kTileRows;
        AddBias(weights.gate_bias, column, shape_.intermediate, panel.num_rows, gate);
        AddBias(weights.up_bias, column, shape_.intermediate, panel.num_rows, up);
        kernels_.activate(gate, up, panel.num_rows, params_.activation);
        pack_hidden(gate, panel.num_rows, column, HiddenPanel(panel));
      }
    }
  }

  const std::byte* DownTile(uint32_t active, uint32_t tile) const {
    return TileOf(params_.experts[space_.active[active].index].down, tile);
  }

  void RunDown() {
    const size_t rows = size_t{NumPlaces()} * parts_;
    const uint32_t n = params_.experts[0].down.n;
    const size_t tile_bytes = TileBytes(params_.experts[0].down);
    ParallelUnits(pool_, NumTiles(n), [&](uint32_t thread, uint32_t tile) {
      float* products = space_.products + thread * rows * kTileRows;
      for (uint32_t a = 0; a < num_active_; ++a) {
        // After the last expert comes the first one's next tile.
        const std::byte* next =
            a + 1 < num_active_ ? DownTile(a + 1, tile) : DownTile(0, tile) + tile_bytes;
        DownProducts(space_.active[a], DownTile(a, tile), next, products);
        FinishProducts(space_.active[a], tile, n, products);
      }
      if (outputs_ == Outputs::kSum) {
        Combine(products, tile, n);
      } else {
        CopyRows(products, tile, n);
      }
    });
  }

  // One tile times all rows of an expert. Columns go by in chunks that stay in the cache while the
  // panels pass.
  void DownProducts(const ActiveExpert& expert, const std::byte* tile, const std::byte* next_tile,
                    float* products) {
    const uint32_t k = shape_.intermediate;
    const uint32_t num_panels = expert.end_panel - expert.first_panel;
    const uint32_t offset = params_.experts[expert.index].down.block_offset;
    // Chunks end with blocks of scales, and have to end at multiples of 32 columns, too.
    const bool whole = num_panels == 1 || offset % kQuantBlock != 0;
    const uint32_t chunk = ChunkColumns(shape_.down_format);
    for (uint32_t column = 0, end = 0; column < k; column = end) {
      const uint32_t block_offset = column == 0 ? offset : 0;
      end = whole ? k : std::min(column + chunk - block_offset, k);
      const uint32_t columns = end - column;
      const size_t bytes = TileBytes(shape_.down_format, columns, block_offset);
      const std::byte* weights = tile + TileBytes(shape_.down_format, column, offset);
      const std::byte* next = end < k ? weights + bytes : next_tile;
      for (uint32_t i = expert.first_panel; i < expert.end_panel; ++i) {
        const FfnPanel& panel = space_.panels[i];
        const uint32_t rows = panel.num_rows * parts_;
        kernels_.MultiplyOf(shape_.down_format, rows)(
            {.tile = weights,
             .panel = HiddenPanel(panel) + rows * PanelRowBytes(down_kind_, column),
             .k = columns,
             .block_offset = block_offset,
             .resume = column != 0,
             .out = products + size_t{panel.first_slot} * parts_ * kTileRows,
             .prefetch = PrefetchOf(shape_.down_format, weights, next, bytes,
                                    i - expert.first_panel, num_panels)});
      }
    }
  }

  // One tile of an expert's outputs, complete in the first part of each of its rows. Weights come
  // later, so that an output has the same bits whether it is added here or on another device.
  void FinishProducts(const ActiveExpert& expert, uint32_t tile, uint32_t n, float* products) {
    const float* bias = params_.experts[expert.index].down_bias;
    if (parts_ == 1 && bias == nullptr) return;
    const FfnPanel& last = space_.panels[expert.end_panel - 1];
    const uint32_t end_slot = last.first_slot + last.num_rows;
    for (uint32_t slot = space_.panels[expert.first_panel].first_slot; slot < end_slot; ++slot) {
      float* row = products + size_t{slot} * parts_ * kTileRows;
      for (uint32_t part = 1; part < parts_; ++part) {
        kernels_.add_scaled(row, row + part * kTileRows, 1.0f);
      }
      AddBias(bias, tile * kTileRows, n, 1, row);
    }
  }

  const float* ProductOf(const float* products, uint32_t slot) const {
    return products + size_t{slot} * parts_ * kTileRows;
  }

  // y of one tile's columns, in the router's order.
  void Combine(const float* products, uint32_t tile, uint32_t n) {
    const uint32_t first = tile * kTileRows;
    const uint32_t count = std::min(kTileRows, n - first);
    for (uint32_t t = 0; t < params_.num_rows; ++t) {
      alignas(64) float sum[kTileRows] = {};
      for (uint32_t place = t * params_.top_k; place < (t + 1) * params_.top_k; ++place) {
        const uint32_t slot = space_.slot_of_place[place];
        if (slot == kAbsent) continue;
        const bool plain = params_.expert_weights == nullptr || params_.weigh_input;
        kernels_.add_scaled(sum, ProductOf(products, slot),
                            plain ? 1.0f : params_.expert_weights[place]);
      }
      std::copy_n(sum, count, params_.y + size_t{t} * n + first);
    }
  }

  // The products themselves, in the order of places.
  void CopyRows(const float* products, uint32_t tile, uint32_t n) {
    const uint32_t first = tile * kTileRows;
    const uint32_t count = std::min(kTileRows, n - first);
    float* y = params_.y + first;
    for (uint32_t place = 0; place < NumPlaces(); ++place) {
      const uint32_t slot = space_.slot_of_place[place];
      if (slot == kAbsent) continue;
      std::copy_n(ProductOf(products, slot), count, y);
      y += n;
    }
  }

  const MoeFfnParams& params_;
  const Outputs outputs_;
  const FfnShape shape_;
  const LinearKernels& kernels_;
  ThreadPool& pool_;
  const PanelKind gate_kind_;
  const PanelKind down_kind_;
  const uint32_t parts_;  // of a hidden row
  Workspace space_;
  uint32_t num_active_ = 0;
  uint32_t num_panels_ = 0;
};

}  // namespace

size_t FfnWorkspaceBytes(const FfnShape& shape, uint32_t max_rows, uint32_t num_threads) {
  WorkspaceCutter counter(nullptr);
  CutWorkspace(shape, max_rows, num_threads, counter);
  return counter.bytes();
}

void MoeFfn(const MoeFfnParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (params.num_rows == 0) return;
  if (cpu.isa() == CpuIsa::kReference) {
    reference::MoeFfn(params);
    return;
  }
  FfnRun(params, Outputs::kSum, cpu).Run();
}

void MoeExpertRows(const MoeFfnParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (params.num_rows == 0) return;
  if (cpu.isa() == CpuIsa::kReference) {
    reference::MoeExpertRows(params);
    return;
  }
  FfnRun(params, Outputs::kRows, cpu).Run();
}

void GatedFfn(const GatedFfnParams& params, Stream& stream) {
  if (params.num_rows == 0) return;
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) {
    reference::GatedFfn(params);
    return;
  }
  // Without ids and weights every token goes to expert 0 with weight 1.
  const MoeFfnParams all_to_one{.x = params.x,
                                .num_rows = params.num_rows,
                                .top_k = 1,
                                .expert_ids = nullptr,
                                .expert_weights = nullptr,
                                .first_expert = 0,
                                .experts = {&params.weights, 1},
                                .activation = params.activation,
                                .y = params.y};
  FfnRun(all_to_one, Outputs::kSum, cpu).Run();
}

}  // namespace essor::kernels
