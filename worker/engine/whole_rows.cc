#include "worker/engine/whole_rows.h"

#include <algorithm>
#include <cstring>

#include "common/status_macros.h"

namespace essor::worker {
namespace {

uint32_t Widest(const std::vector<model::Range>& slices) {
  uint64_t widest = 0;
  for (const model::Range& slice : slices) widest = std::max(widest, slice.size());
  return static_cast<uint32_t>(widest);
}

}  // namespace

WholeRows::WholeRows(const HeadSlice* slice, uint32_t vocab_size, Arena& arena)
    : slice_(*slice), widest_slice_(Widest(slice->vocab_slices)), whole_row_(vocab_size) {
  sent_ = arena.Take<float>(uint64_t{kRowsAtOnce} * widest_slice_);
  gathered_ = arena.Take<float>(slice_.num_ranks() * kRowsAtOnce * widest_slice_);
}

uint64_t WholeRows::MaxExchangeBytes(const std::vector<model::Range>& vocab_slices) {
  return uint64_t{kRowsAtOnce} * Widest(vocab_slices) * sizeof(float);
}

absl::Status WholeRows::Gather(
    const float* logits, std::span<const uint32_t> wanted,
    absl::FunctionRef<void(uint32_t index, std::span<const float> row)> take) {
  const size_t width = slice_.width();
  for (size_t first = 0; first < wanted.size(); first += kRowsAtOnce) {
    const auto count = static_cast<uint32_t>(std::min<size_t>(kRowsAtOnce, wanted.size() - first));
    for (uint32_t i = 0; i < count; ++i) {
      std::memcpy(sent_ + size_t{i} * widest_slice_, logits + wanted[first + i] * width,
                  width * sizeof(float));
    }
    const size_t sent_bytes = size_t{count} * widest_slice_ * sizeof(float);
    ESSOR_RETURN_IF_ERROR(slice_.stage->AllGather(
        {reinterpret_cast<const std::byte*>(sent_), sent_bytes},
        {reinterpret_cast<std::byte*>(gathered_), sent_bytes * slice_.num_ranks()}));
    for (uint32_t i = 0; i < count; ++i) {
      Assemble(i, count);
      take(wanted[first + i], whole_row_);
    }
  }
  return absl::OkStatus();
}

void WholeRows::Assemble(uint32_t index, uint32_t num_gathered) {
  for (size_t r = 0; r < slice_.num_ranks(); ++r) {
    const model::Range& slice = slice_.vocab_slices[r];
    std::memcpy(whole_row_.data() + slice.begin,
                gathered_ + (r * num_gathered + index) * widest_slice_,
                slice.size() * sizeof(float));
  }
}

}  // namespace essor::worker
