// The kinds of memory of its past that a model keeps for a sequence, and how much there is of each.
#pragma once

#include <cstdint>

#include "model/spec/model_spec.h"

namespace essor::model {

// Layers are served by blocks of all positions, by blocks of the last positions (those behind are
// given back), or by a state of fixed size; a model may have all three.
struct KvKinds {
  bool full = false;           // some layer reads all positions
  uint32_t window_tokens = 0;  // the most that a layer with a window or chunks reads; 0 = none has
  bool states = false;         // some layer keeps a state
  bool operator==(const KvKinds&) const = default;
};

// A window that no sequence of `max_context_tokens` can leave counts as full.
KvKinds KvKindsOf(const ModelSpec& spec, uint32_t max_context_tokens);

// Whether a layer's cache is in the blocks of the last positions.
bool IsWindowed(const AttentionSpec& attention, uint32_t max_context_tokens);

// Of one data-parallel group; the same for all groups of an instance.
struct KvCapacity {
  uint32_t num_blocks = 0;         // of layers that read all positions
  uint32_t num_window_blocks = 0;  // of layers that read the last ones
  uint32_t num_snapshots = 0;      // copies of a sequence's states
  bool operator==(const KvCapacity&) const = default;
};

// What two ranks both have room for.
KvCapacity Smaller(const KvCapacity& a, const KvCapacity& b);

}  // namespace essor::model
