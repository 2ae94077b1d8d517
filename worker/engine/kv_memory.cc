#include "worker/engine/kv_memory.h"

#include <cstddef>
#include <utility>

#include "common/status_macros.h"
#include "model/plan/attention_shape.h"

namespace essor::worker {
namespace {

// Caches and states begin on cache lines.
uint64_t WholeLines(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

const model::AttentionSpec& AttentionOf(const KvMemory::Shape& shape, size_t index) {
  return shape.spec->layers[shape.layout->layers.begin + index].attention;
}

bool IsWindowed(const KvMemory::Shape& shape, size_t index) {
  return model::IsWindowed(AttentionOf(shape, index), shape.limits.max_context_tokens);
}

uint32_t NumBlocks(const KvMemory::Shape& shape, size_t index) {
  return IsWindowed(shape, index) ? shape.capacity.num_window_blocks : shape.capacity.num_blocks;
}

uint32_t StateSlots(const KvMemory::Shape& shape) {
  return shape.limits.max_sequences + shape.capacity.num_snapshots;
}

uint64_t CacheBytes(const KvMemory::Shape& shape, size_t index) {
  const uint64_t per_token =
      model::KvTokenBytesOf(AttentionOf(shape, index), shape.layout->per_layer[index],
                            shape.limits.kv_type)
          .total();
  return WholeLines(uint64_t{NumBlocks(shape, index)} * shape.limits.block_tokens * per_token);
}

uint64_t StateBytes(const KvMemory::Shape& shape, size_t index) {
  const uint64_t floats =
      model::StateFloatsPerSequence(AttentionOf(shape, index), shape.layout->per_layer[index]);
  return WholeLines(StateSlots(shape) * floats * sizeof(float));
}

}  // namespace

uint64_t KvMemory::Bytes(const Shape& shape) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < shape.layout->per_layer.size(); ++i) {
    bytes += CacheBytes(shape, i) + StateBytes(shape, i);
  }
  return bytes;
}

absl::StatusOr<KvMemory> KvMemory::Create(const Shape& shape) {
  ESSOR_ASSIGN_OR_RETURN(DeviceBuffer buffer,
                         DeviceBuffer::Allocate(Bytes(shape), "KV blocks and states"));
  return KvMemory(shape, std::move(buffer));
}

KvMemory::KvMemory(const Shape& shape, DeviceBuffer buffer)
    : buffer_(std::move(buffer)),
      first_snapshot_(shape.limits.max_sequences),
      state_slots_(StateSlots(shape)) {
  std::byte* next = buffer_.data();
  for (size_t i = 0; i < shape.layout->per_layer.size(); ++i) {
    Layer layer{.cache = {.data = next,
                          .type = shape.limits.kv_type,
                          .num_blocks = NumBlocks(shape, i),
                          .block_tokens = shape.limits.block_tokens,
                          .window = IsWindowed(shape, i)}};
    next += CacheBytes(shape, i);
    const uint64_t state_bytes = StateBytes(shape, i);
    if (state_bytes > 0) layer.states = reinterpret_cast<float*>(next);
    next += state_bytes;
    layers_.push_back(layer);
  }
}

void KvMemory::Keep(uint32_t index, const KeptPieces& pieces) {
  std::vector<PieceArray>& blocks = layers_[index].cache.window ? window_blocks_ : blocks_;
  blocks.insert(blocks.end(), pieces.of_block.begin(), pieces.of_block.end());
  states_.insert(states_.end(), pieces.of_sequence.begin(), pieces.of_sequence.end());
}

void KvMemory::CopyBlock(uint32_t from, uint32_t to, bool window, kernels::Stream& stream) {
  Copy(window ? window_blocks_ : blocks_, from, to, stream);
}

void KvMemory::SaveStates(uint32_t slot, uint32_t snapshot, kernels::Stream& stream) {
  Copy(states_, slot, first_snapshot_ + snapshot, stream);
}

void KvMemory::RestoreStates(uint32_t snapshot, uint32_t slot, kernels::Stream& stream) {
  Copy(states_, first_snapshot_ + snapshot, slot, stream);
}

void KvMemory::Copy(const std::vector<PieceArray>& arrays, uint32_t from, uint32_t to,
                    kernels::Stream& stream) {
  copies_.clear();
  for (const PieceArray& array : arrays) {
    copies_.push_back({.from = array.data + from * array.bytes,
                       .to = array.data + to * array.bytes,
                       .bytes = array.bytes});
  }
  kernels::CopyMemory(copies_, stream);
}

}  // namespace essor::worker
