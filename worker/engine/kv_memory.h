// What a rank keeps of its sequences' past: KV blocks, states, and snapshots of states.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/memory_copy.h"
#include "kernels/stream.h"
#include "model/plan/kv_kinds.h"
#include "model/plan/memory_plan.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/device/device_buffer.h"
#include "worker/layers/layer.h"

namespace essor::worker {

// One buffer for all layers, allocated in Create and divided among them. Owned and called by the
// rank's engine thread, in this order: the layers are made from Cache() and States(), each is told
// to Keep() what it holds, then blocks and states are copied. Numbers are in range: SequenceSlots
// has checked them.
class KvMemory {
 public:
  struct Shape {
    const model::ModelSpec* spec;  // borrowed for the call, like the layout
    const model::RankLayout* layout;
    model::ServingLimits limits;
    model::KvCapacity capacity;
  };
  // What Create allocates.
  static uint64_t Bytes(const Shape& shape);
  // ResourceExhausted when the memory is not to be had.
  static absl::StatusOr<KvMemory> Create(const Shape& shape);

  // Of layer `index` of the rank: blocks of its attention's kind, and states of state_slots()
  // sequences, null where it keeps none. A sequence's states are those of its slot; snapshots are
  // the slots behind those of all sequences.
  const LayerCache& Cache(uint32_t index) const { return layers_[index].cache; }
  float* States(uint32_t index) const { return layers_[index].states; }
  uint32_t state_slots() const { return state_slots_; }
  void Keep(uint32_t index, const KeptPieces& pieces);

  // In all layers of the kind.
  void CopyBlock(uint32_t from, uint32_t to, bool window, kernels::Stream& stream);
  void SaveStates(uint32_t slot, uint32_t snapshot, kernels::Stream& stream);
  void RestoreStates(uint32_t snapshot, uint32_t slot, kernels::Stream& stream);

 private:
  struct Layer {
    LayerCache cache;
    float* states = nullptr;
  };

  KvMemory(const Shape& shape, DeviceBuffer buffer);
  void Copy(const std::vector<PieceArray>& arrays, uint32_t from, uint32_t to,
            kernels::Stream& stream);

  DeviceBuffer buffer_;
  std::vector<Layer> layers_;
  uint32_t first_snapshot_;  // as a slot
  uint32_t state_slots_;
  std::vector<PieceArray> blocks_;
  std::vector<PieceArray> window_blocks_;
  std::vector<PieceArray> states_;
  std::vector<kernels::CopyPiece> copies_;  // of one call
};

}  // namespace essor::worker
