#include "model/checkpoint/tensor_table.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace essor::model {
namespace {

// FNV-1a with 128 bits (http://www.isthe.com/chongo/tech/comp/fnv/): not cryptographic, enough to
// tell models apart. Strings carry their length, so that neighbours cannot merge.
class Fnv128 {
 public:
  void Add(const void* data, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      hash_ ^= static_cast<const unsigned char*>(data)[i];
      hash_ *= kPrime;
    }
  }
  void Add(uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      const auto byte = static_cast<unsigned char>(value >> shift);
      Add(&byte, 1);
    }
  }
  void Add(const std::string& text) {
    Add(text.size());
    Add(text.data(), text.size());
  }
  std::string Hex() const {
    return absl::StrFormat("%016x%016x", static_cast<uint64_t>(hash_ >> 64),
                           static_cast<uint64_t>(hash_));
  }

 private:
  using Word = unsigned __int128;
  static constexpr Word kPrime = (Word{1} << 88) + 0x13b;
  Word hash_ = (Word{0x6c62272e07bb0142} << 64) + 0x62b821756295c58d;
};

// A few bytes of a few tensors of every size tell models apart that differ in values only, such as
// two upcycled with different seeds, at the price of a few page reads.
constexpr size_t kSampledSizes = 16;
constexpr size_t kSamplesPerSize = 4;
constexpr size_t kSampleBytes = 64;

void AddSamples(const std::vector<TensorEntry>& entries, Fnv128& hash) {
  std::map<size_t, std::vector<const TensorEntry*>, std::greater<>> by_size;
  for (const TensorEntry& entry : entries) by_size[entry.view.data.size()].push_back(&entry);
  size_t sizes = 0;
  for (const auto& [size, group] : by_size) {
    if (size == 0 || ++sizes > kSampledSizes) break;
    const size_t count = std::min(group.size(), kSamplesPerSize);
    for (size_t i = 0; i < count; ++i) {
      const auto data = group[(2 * i + 1) * group.size() / (2 * count)]->view.data;
      const size_t begin = size / 2;
      hash.Add(data.data() + begin, std::min(kSampleBytes, size - begin));
    }
  }
}

}  // namespace

std::optional<uint64_t> ElementCount(std::span<const uint64_t> shape) {
  uint64_t count = 1;
  for (const uint64_t extent : shape) {
    if (__builtin_mul_overflow(count, extent, &count)) return std::nullopt;
  }
  return count;
}

TensorTable::TensorTable(std::string format, std::vector<TensorEntry> entries,
                         std::vector<uint64_t> files)
    : format_(std::move(format)), entries_(std::move(entries)), files_(std::move(files)) {
  std::sort(entries_.begin(), entries_.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.view.name < b.view.name; });
  by_name_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) by_name_.emplace(entries_[i].view.name, i);
}

absl::StatusOr<TensorView> TensorTable::Find(const std::string& name) const {
  const auto it = by_name_.find(name);
  if (it == by_name_.end()) {
    return absl::NotFoundError(absl::StrCat("the checkpoint has no tensor ", name));
  }
  const TensorEntry& entry = entries_[it->second];
  if (!entry.supported) {
    return absl::InvalidArgumentError(absl::StrCat(
        entry.view.file, ": tensor ", name, " has the unsupported type ", entry.stored_type));
  }
  return entry.view;
}

std::vector<std::string> TensorTable::Names() const {
  std::vector<std::string> names;
  names.reserve(entries_.size());
  for (const TensorEntry& entry : entries_) names.push_back(entry.view.name);
  return names;
}

std::string TensorTable::Fingerprint() const {
  Fnv128 hash;
  hash.Add(format_);
  hash.Add(files_.size());
  for (const uint64_t size : files_) hash.Add(size);
  hash.Add(entries_.size());
  for (const TensorEntry& entry : entries_) {
    hash.Add(entry.view.name);
    hash.Add(entry.stored_type);
    hash.Add(entry.view.shape.size());
    for (const uint64_t extent : entry.view.shape) hash.Add(extent);
  }
  AddSamples(entries_, hash);
  return hash.Hex();
}

}  // namespace essor::model
