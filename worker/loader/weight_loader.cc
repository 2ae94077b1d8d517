#include "worker/loader/weight_loader.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/status_macros.h"
#include "model/checkpoint/fp8_blocks.h"
#include "model/checkpoint/nibble_groups.h"
#include "worker/loader/assign_weight.h"
#include "worker/loader/pack_slice.h"

namespace essor::worker {
namespace {

using kernels::PackedMatrix;
using kernels::WeightFormat;
using model::WeightRole;

// Source bytes a loader thread takes at a time: long enough to stream, short enough to balance.
constexpr uint64_t kTaskElements = 512 * 1024;
// Times as many where the source is transposed: a row of it holds one element of each of the task's
// rows, and pieces of a few hundred bytes are worth a page's visit.
constexpr uint64_t kWideTask = 4;
// Tasks that the kernel is asked to read ahead of the ones being packed: enough that the disk
// always has some tens of megabytes to do.
constexpr size_t kTasksAhead = 48;

// One slice with its place in the storage.
struct Placed {
  const model::WeightSlice* slice;
  model::TensorView tensor;
  std::optional<model::TensorView> scales;  // of an e4m3 or 4-bit tensor
  bool is_vector;
  WeightFormat format;
  uint64_t offset;
  uint64_t bytes;
};

// Nothing where the tensor's type needs no scales beside it.
absl::StatusOr<std::optional<model::TensorView>> FindScales(const LoadRequest& request,
                                                            const model::WeightBinding& binding,
                                                            const model::TensorView& tensor) {
  const bool nibbles = model::IsNibbles(tensor.dtype);
  if (!nibbles && tensor.dtype != DType::kF8E4M3) return std::nullopt;
  ESSOR_ASSIGN_OR_RETURN(model::TensorView scales, request.checkpoint->Find(binding.scales));
  ESSOR_RETURN_IF_ERROR(nibbles ? model::CheckNibbleScales(tensor, scales)
                                : model::CheckFp8Scales(tensor, scales));
  return scales;
}

absl::StatusOr<std::vector<Placed>> PlaceSlices(const LoadRequest& request, uint64_t* total) {
  std::vector<Placed> placed;
  placed.reserve(request.slices->size());
  uint64_t offset = 0;
  for (const model::WeightSlice& slice : *request.slices) {
    ESSOR_ASSIGN_OR_RETURN(model::TensorView tensor,
                           request.checkpoint->Find(slice.binding.tensor));
    if (slice.binding.packed_as.has_value()) {
      ESSOR_ASSIGN_OR_RETURN(tensor, model::TakeAsNibbles(tensor, *slice.binding.packed_as));
    }
    Placed place{.slice = &slice,
                 .tensor = std::move(tensor),
                 .scales = std::nullopt,
                 .is_vector = model::IsVector(slice.binding.role),
                 .format = WeightFormat::kF32,
                 .offset = offset,
                 .bytes = slice.rows.size() * slice.cols.size() * sizeof(float)};
    if (!place.is_vector) {
      place.format = model::IsHeldAsFloat32(slice.binding.role)
                         ? WeightFormat::kF32
                         : FormatFor(place.tensor.dtype, request.precision);
      const bool plain = place.format == WeightFormat::kF32 || place.format == WeightFormat::kBF16;
      if (!plain && model::IsHeldUnquantised(slice.binding)) {
        place.format = WeightFormat::kBF16;
      }
      place.bytes = kernels::PackedMatrixBytes(place.format, slice.rows.size(), slice.cols.size(),
                                               BlockOffsetOf(slice, place.format));
    }
    ESSOR_ASSIGN_OR_RETURN(place.scales, FindScales(request, slice.binding, place.tensor));
    offset += (place.bytes + 63) / 64 * 64;
    placed.push_back(std::move(place));
  }
  *total = offset;
  return placed;
}

// The kernels run all experts of a layer together, and gate and up side by side: each of these sets
// is held in one format. A checkpoint may mix types all the same (FP8 with exceptions).
absl::Status CheckFfnFormats(const std::vector<Placed>& placed) {
  // By layer; whether an expert's; whether down.
  std::map<std::tuple<int32_t, bool, bool>, const Placed*> first;
  for (const Placed& place : placed) {
    const model::WeightBinding& binding = place.slice->binding;
    if (!model::IsFfnMatrix(binding.role)) continue;
    const auto [found, is_new] = first.try_emplace(
        {binding.layer, binding.expert >= 0, binding.role == WeightRole::kDown}, &place);
    if (is_new || found->second->format == place.format) continue;
    const model::TensorView& other = found->second->tensor;
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: tensor %s is %s and %s is %s; matrices that are multiplied together need one type",
        place.tensor.file, place.tensor.name, InfoOf(place.tensor.dtype).name, other.name,
        InfoOf(other.dtype).name));
  }
  return absl::OkStatus();
}

// The work of all loader threads: rows of placed slices, taken in order.
class LoadRun {
 public:
  LoadRun(const LoadRequest& request, const std::vector<Placed>& placed, std::byte* storage)
      : request_(request), placed_(placed), storage_(storage) {
    for (size_t i = 0; i < placed.size(); ++i) {
      total_bytes_ += placed[i].bytes;
      const uint64_t rows = placed[i].is_vector ? 1 : placed[i].slice->rows.size();
      for (uint64_t row = 0; row < rows; row += RowsPerTask(placed[i])) tasks_.push_back({i, row});
    }
  }

  absl::Status Run() {
    std::vector<std::thread> threads;
    for (uint32_t i = 1; i < request_.num_threads; ++i) threads.emplace_back([this] { Work(); });
    Work();
    for (std::thread& thread : threads) thread.join();
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  struct Task {
    size_t placed;
    uint64_t first_row;
  };

  static uint64_t RowsPerTask(const Placed& place) {
    const uint64_t elements = kTaskElements * (place.slice->binding.transposed ? kWideTask : 1);
    const uint64_t rows = elements / std::max<uint64_t>(place.slice->cols.size(), 1);
    return std::max<uint64_t>(rows / kernels::kPackRowGroup, 1) * kernels::kPackRowGroup;
  }

  void Work() {
    while (!stop_.load(std::memory_order_relaxed)) {
      const size_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= tasks_.size()) return;
      if (index == 0) {
        for (size_t i = 0; i < std::min(kTasksAhead, tasks_.size()); ++i) ReadAhead(tasks_[i]);
      }
      if (index + kTasksAhead < tasks_.size()) ReadAhead(tasks_[index + kTasksAhead]);
      absl::Status status =
          Cancelled() ? absl::CancelledError("loading was given up") : RunTask(tasks_[index]);
      if (status.ok()) continue;
      stop_.store(true, std::memory_order_relaxed);
      absl::MutexLock lock(&mutex_);
      status_.Update(std::move(status));
    }
  }

  bool Cancelled() const {
    return request_.cancelled != nullptr && request_.cancelled->load(std::memory_order_relaxed);
  }

  PackTask PackTaskOf(const Task& task) const {
    const Placed& place = placed_[task.placed];
    const uint64_t rows = place.slice->rows.size();
    return {.slice = place.slice,
            .tensor = &place.tensor,
            .scales = place.scales.has_value() ? &*place.scales : nullptr,
            .format = place.format,
            .destination = storage_ + place.offset,
            .first_row = task.first_row,
            .num_rows = std::min(RowsPerTask(place), rows - task.first_row)};
  }

  // A hint: a kernel that ignores it only makes loading slower.
  void ReadAhead(const Task& task) const {
    const Placed& place = placed_[task.placed];
    if (place.is_vector) return;
    // All tasks of a transposed slice read from the same rows.
    if (place.slice->binding.transposed && task.first_row != 0) return;
    const std::span<const std::byte> source = SourceBytes(PackTaskOf(task));
    constexpr uintptr_t kPage = 4096;
    const auto begin = reinterpret_cast<uintptr_t>(source.data()) / kPage * kPage;
    const auto end = reinterpret_cast<uintptr_t>(source.data()) + source.size();
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
  }

  absl::Status RunTask(const Task& task) {
    const Placed& place = placed_[task.placed];
    std::byte* destination = storage_ + place.offset;
    if (place.is_vector) {
      ESSOR_RETURN_IF_ERROR(
          LoadVector(*place.slice, place.tensor, reinterpret_cast<float*>(destination)));
      Report(place.bytes);
      return absl::OkStatus();
    }
    const PackTask pack = PackTaskOf(task);
    ESSOR_RETURN_IF_ERROR(PackRows(pack));
    Report(place.bytes * pack.num_rows / place.slice->rows.size());
    return absl::OkStatus();
  }

  void Report(uint64_t bytes) {
    const uint64_t done = done_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    if (request_.progress) request_.progress(done, total_bytes_);
  }

  const LoadRequest& request_;
  const std::vector<Placed>& placed_;
  std::byte* const storage_;
  std::vector<Task> tasks_;
  uint64_t total_bytes_ = 0;
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> done_bytes_{0};
  std::atomic<bool> stop_{false};
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

void Assign(const Placed& place, const model::RankLayout& layout, RankWeights& weights) {
  const std::byte* data = weights.storage.data() + place.offset;
  const PackedMatrix matrix{.format = place.format,
                            .n = static_cast<uint32_t>(place.slice->rows.size()),
                            .k = static_cast<uint32_t>(place.slice->cols.size()),
                            .block_offset = BlockOffsetOf(*place.slice, place.format),
                            .data = data};
  AssignWeight(place.slice->binding, layout, matrix, reinterpret_cast<const float*>(data), weights);
}

}  // namespace

absl::StatusOr<Precision> ParsePrecision(const std::string& dtype) {
  if (dtype == "auto") return Precision::kStored;
  if (dtype == "float32") return Precision::kFloat32;
  if (dtype == "bfloat16") return Precision::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrFormat("dtype \"%s\" is not auto, float32 or bfloat16", dtype));
}

WeightFormat FormatFor(DType stored, Precision precision) {
  if (precision == Precision::kFloat32) return WeightFormat::kF32;
  switch (stored) {
    case DType::kF32:
      return precision == Precision::kBFloat16 ? WeightFormat::kBF16 : WeightFormat::kF32;
    case DType::kQ8_0:
      return WeightFormat::kQ8;
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
      return WeightFormat::kQ4;
    case DType::kF8E4M3:
      return WeightFormat::kFp8;
    case DType::kF4E2M1:
      return WeightFormat::kFp4;
    case DType::kOffsetI4:
      return WeightFormat::kInt4;
    default:
      return WeightFormat::kBF16;
  }
}

absl::StatusOr<std::unique_ptr<const RankWeights>> LoadRankWeights(const LoadRequest& request) {
  uint64_t total = 0;
  ESSOR_ASSIGN_OR_RETURN(const std::vector<Placed> placed, PlaceSlices(request, &total));
  ESSOR_RETURN_IF_ERROR(CheckFfnFormats(placed));
  auto weights = std::make_unique<RankWeights>();
  ESSOR_ASSIGN_OR_RETURN(
      weights->storage,
      DeviceBuffer::Allocate(total, absl::StrFormat("weights of rank %d", request.layout->rank)));
  ESSOR_RETURN_IF_ERROR(LoadRun(request, placed, weights->storage.data()).Run());

  weights->layers.resize(request.layout->layers.size());
  for (size_t i = 0; i < weights->layers.size(); ++i) {
    weights->layers[i].experts.resize(request.layout->per_layer[i].experts.size());
  }
  for (const model::RankLayout::Layer& draft : request.layout->per_draft_layer) {
    weights->draft_layers.emplace_back().layer.experts.resize(draft.experts.size());
  }
  for (const Placed& place : placed) Assign(place, *request.layout, *weights);
  if (weights->head.n == 0 && request.layout->last_stage) weights->head = weights->embedding;
  return weights;
}

}  // namespace essor::worker
