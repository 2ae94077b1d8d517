// Strong integer ids: a WorkerId is never an Epoch. Each is a trivially copyable value with
// ordering and an absl hash; value() is what travels in protobuf and logs.
#pragma once

#include <compare>
#include <cstdint>
#include <utility>

namespace essor {

template <typename Tag, typename Value>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Value value) : value_(value) {}
  constexpr Value value() const { return value_; }
  constexpr auto operator<=>(const StrongId&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Value value_{};
};

// One formation of an instance; grows by one each time ranks are (re)assigned. 0 = never formed.
using Epoch = StrongId<struct EpochTag, uint64_t>;
// One forward pass of one instance; starts at 1 in each epoch and grows by one.
using StepId = StrongId<struct StepIdTag, uint64_t>;
// One worker process, numbered by the coordinator when it joins; never reused.
using WorkerId = StrongId<struct WorkerIdTag, uint64_t>;
// One stream of tokens being extended, numbered by the coordinator; never reused.
using SequenceId = StrongId<struct SequenceIdTag, uint64_t>;
// An index into the model's vocabulary. Not a strong type: it is arithmetic data on every hot path.
using TokenId = uint32_t;
// What a rank answers when no token could be chosen: none of the row's logits was a finite number.
inline constexpr TokenId kNoToken = UINT32_MAX;
// A KV block of an instance, 0 .. num_blocks-1; the same id on every rank.
using BlockId = StrongId<struct BlockIdTag, uint32_t>;

}  // namespace essor
