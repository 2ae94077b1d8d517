#include "client/convert/weight_stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/convert/seeded_noise.h"
#include "common/float16.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_names.h"
#include "model/checkpoint/mapped_file.h"
#include "model/checkpoint/quantize.h"

namespace essor::client {
namespace {

constexpr uint64_t kChunkElements = 1 << 20;

// Rows [first, first + count) of the output, each as it stands in the source file.
class RowMap {
 public:
  explicit RowMap(const WeightPart& part)
      : from_(part.source == nullptr ? 0 : part.source->binding.interleaved_head_dim),
        to_(part.interleaved_head_dim) {}

  bool identity() const { return from_ == to_; }
  uint64_t SourceRow(uint64_t output_row) const {
    const uint64_t canonical = to_ == 0 ? output_row : CanonicalRow(output_row, to_);
    return from_ == 0 ? canonical : model::GgufRopeRow(canonical, from_);
  }

 private:
  uint64_t from_;
  uint64_t to_;
};

// Where the weight begins in its tensor.
uint64_t FirstElement(const WeightPart& part) { return part.source->binding.first_row * part.cols; }

absl::Status DecodeRows(const WeightPart& part, uint64_t first, uint64_t count,
                        std::span<float> out) {
  const SourceWeight& source = *part.source;
  const RowMap map(part);
  if (map.identity()) {
    return model::DecodeToFloat(source.tensor, FirstElement(part) + first * part.cols, out);
  }
  for (uint64_t i = 0; i < count; ++i) {
    ESSOR_RETURN_IF_ERROR(model::DecodeToFloat(
        source.tensor, FirstElement(part) + map.SourceRow(first + i) * part.cols,
        out.subspan(i * part.cols, part.cols)));
  }
  return absl::OkStatus();
}

// The bytes that hold the weight; whole blocks.
std::span<const std::byte> StoredBytes(const WeightPart& part) {
  const model::TensorView& tensor = part.source->tensor;
  const DTypeInfo& info = InfoOf(tensor.dtype);
  const uint64_t first = FirstElement(part) / info.block_elements;
  const uint64_t last = (FirstElement(part) + part.rows * part.cols - 1) / info.block_elements;
  return tensor.data.subspan(first * info.block_bytes, (last - first + 1) * info.block_bytes);
}

// Copies stored bytes; for equal types, with rows of whole blocks.
void CopyRows(const WeightPart& part, uint64_t first, uint64_t count, std::span<std::byte> out) {
  const SourceWeight& source = *part.source;
  const RowMap map(part);
  const uint64_t row_bytes = StorageBytes(source.tensor.dtype, part.cols);
  const std::byte* const begin =
      source.tensor.data.data() + StorageBytes(source.tensor.dtype, FirstElement(part));
  if (map.identity()) {
    std::memcpy(out.data(), begin + first * row_bytes, count * row_bytes);
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    std::memcpy(out.data() + i * row_bytes, begin + map.SourceRow(first + i) * row_bytes,
                row_bytes);
  }
}

// A made weight is rounded to bf16, so that it is the same whatever type it is stored as.
void MakeRows(const WeightPart& part, uint64_t first, std::span<float> out) {
  const SeededNoise noise(part.seed, part.name);
  const auto scale = static_cast<float>(part.noise);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = ToFloat(ToBFloat16(scale * noise.Normal(first * part.cols + i)));
  }
}

absl::StatusOr<double> StandardDeviation(const WeightPart& part) {
  const SourceWeight& source = *part.source;
  const uint64_t elements = part.rows * part.cols;
  std::vector<float> values(std::min(elements, kChunkElements));
  double sum = 0.0;
  double squares = 0.0;
  for (uint64_t done = 0; done < elements; done += values.size()) {
    values.resize(std::min<uint64_t>(values.size(), elements - done));
    ESSOR_RETURN_IF_ERROR(
        model::DecodeToFloat(source.tensor, FirstElement(part) + done, std::span(values)));
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
    }
  }
  const double count = static_cast<double>(elements);
  const double mean = sum / count;
  return std::sqrt(std::max(0.0, squares / count - mean * mean));
}

}  // namespace

uint64_t CanonicalRow(uint64_t row, uint64_t head_dim) {
  const uint64_t in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

absl::StatusOr<double> WeightStream::NoiseScale(const WeightPart& part) {
  const std::pair key(part.source->tensor.name, FirstElement(part));
  const auto known = deviations_.find(key);
  if (known != deviations_.end()) return part.noise * known->second;
  ESSOR_ASSIGN_OR_RETURN(const double deviation, StandardDeviation(part));
  deviations_.emplace(key, deviation);
  return part.noise * deviation;
}

absl::Status WeightStream::WritePart(const WeightPart& part,
                                     const model::TensorDeclaration& declaration) {
  const DType dtype = declaration.dtype;
  const bool copy = part.source != nullptr && part.noise == 0.0 &&
                    part.source->tensor.dtype == dtype &&
                    part.cols % InfoOf(dtype).block_elements == 0;
  float scale = 0.0f;
  if (part.source != nullptr && part.noise != 0.0) {
    ESSOR_ASSIGN_OR_RETURN(const double deviation, NoiseScale(part));
    scale = static_cast<float>(deviation);
  }
  const SeededNoise noise(part.seed, part.name);
  const uint64_t rows_each = std::max<uint64_t>(1, kChunkElements / part.cols);
  std::vector<float> values;
  std::vector<std::byte> bytes;
  for (uint64_t first = 0; first < part.rows; first += rows_each) {
    const uint64_t count = std::min(rows_each, part.rows - first);
    bytes.resize(StorageBytes(dtype, count * part.cols));
    if (copy) {
      CopyRows(part, first, count, bytes);
    } else {
      values.resize(count * part.cols);
      if (part.source == nullptr) {
        MakeRows(part, first, values);
      } else {
        ESSOR_RETURN_IF_ERROR(DecodeRows(part, first, count, values));
      }
      if (scale != 0.0f) {
        for (size_t i = 0; i < values.size(); ++i) {
          values[i] += scale * noise.Normal(first * part.cols + i);
        }
      }
      const absl::Status encoded = model::EncodeFromFloat(dtype, values, bytes);
      if (!encoded.ok()) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", declaration.name, ": ", std::string(encoded.message())));
      }
    }
    ESSOR_RETURN_IF_ERROR(writer_->Append(bytes));
  }
  return absl::OkStatus();
}

absl::Status WeightStream::Write(const OutputTensor& tensor) {
  if (!tensor.values.empty()) return writer_->Append(std::as_bytes(std::span(tensor.values)));
  for (const WeightPart& part : tensor.parts) {
    if (part.source == nullptr) {
      ESSOR_RETURN_IF_ERROR(WritePart(part, tensor.declaration));
      continue;
    }
    // Read ahead, and give the pages back afterwards: the process stays small, and the page cache
    // keeps them for the other experts made of the same bytes.
    model::Advise(StoredBytes(part), model::MemoryAdvice::kWillNeed);
    ESSOR_RETURN_IF_ERROR(WritePart(part, tensor.declaration));
    model::Advise(StoredBytes(part), model::MemoryAdvice::kDontNeed);
  }
  return absl::OkStatus();
}

}  // namespace essor::client
