#include "client/convert/weight_plan.h"

#include <cmath>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_names.h"
#include "model/spec/families.h"
#include "model/spec/rope_frequencies.h"

namespace essor::client {
namespace {

using model::WeightBinding;
using model::WeightRole;

constexpr double kPerturbation = 0.05;  // of the expert tensor's own standard deviation
// All upcycled models of one shape route alike, perturbed or not.
constexpr uint64_t kRouterSeed = 0;

// Finds a source weight by what it is for.
class SourceIndex {
 public:
  explicit SourceIndex(const SourceModel& source) {
    for (const SourceWeight& weight : source.weights) {
      by_key_.emplace(Key(weight.binding, weight.binding.expert), &weight);
    }
  }
  // Null when there is none. An expert's weight falls back to the dense one that it copies.
  const SourceWeight* Find(const WeightBinding& binding) const {
    for (const int32_t expert : {binding.expert, -1}) {
      const auto it = by_key_.find(Key(binding, expert));
      if (it != by_key_.end()) return it->second;
    }
    return nullptr;
  }

 private:
  static std::tuple<WeightRole, int32_t, int32_t> Key(const WeightBinding& binding,
                                                      int32_t expert) {
    return {binding.role, binding.layer, expert};
  }
  absl::flat_hash_map<std::tuple<WeightRole, int32_t, int32_t>, const SourceWeight*> by_key_;
};

DType StoredType(const WeightBinding& binding, const PlanOptions& options) {
  const bool small = binding.rows == 1 || binding.role == WeightRole::kRouter;
  if (options.to_gguf && small) return DType::kF32;
  switch (options.to) {
    case ConvertType::kF32:
      return DType::kF32;
    case ConvertType::kBF16:
      return DType::kBF16;
    case ConvertType::kQ8_0:
      break;
  }
  const uint32_t block = InfoOf(DType::kQ8_0).block_elements;
  return binding.cols % block == 0 ? DType::kQ8_0 : DType::kBF16;
}

// Norm weights and biases are vectors in files.
std::vector<uint64_t> FileShape(const WeightBinding& binding) {
  switch (binding.role) {
    case WeightRole::kFinalNorm:
    case WeightRole::kAttentionNorm:
    case WeightRole::kFfnNorm:
    case WeightRole::kQueryNorm:
    case WeightRole::kKeyNorm:
    case WeightRole::kQueryBias:
    case WeightRole::kKeyBias:
    case WeightRole::kValueBias:
    case WeightRole::kOutputBias:
      return {binding.cols};
    default:
      return {binding.rows, binding.cols};
  }
}

absl::StatusOr<WeightPart> MakePart(const WeightBinding& binding, const SourceIndex& index,
                                    const PlanOptions& options) {
  WeightPart part;
  part.source = index.Find(binding);
  part.rows = binding.rows;
  part.cols = binding.cols;
  part.name = binding.tensor;
  if (part.source == nullptr) {
    if (binding.role != WeightRole::kRouter || !options.upcycle) {
      return absl::InvalidArgumentError(
          absl::StrCat("the source has nothing for tensor ", binding.tensor));
    }
    // Keeps the spread of the router's logits independent of the width: its inputs are normalised.
    part.noise = 1.0 / std::sqrt(static_cast<double>(binding.cols));
    part.seed = kRouterSeed;
    return part;
  }
  if (options.upcycle && options.upcycle->perturb_seed && binding.expert >= 0) {
    part.noise = kPerturbation;
    part.seed = *options.upcycle->perturb_seed;
  }
  return part;
}

// Copying must not lose weights that only the source's family has (biases, for instance).
absl::Status CheckAllUsed(const SourceModel& source, const std::vector<OutputTensor>& tensors) {
  absl::flat_hash_map<const SourceWeight*, bool> used;
  for (const OutputTensor& tensor : tensors) {
    for (const WeightPart& part : tensor.parts) used[part.source] = true;
  }
  for (const SourceWeight& weight : source.weights) {
    if (used.contains(&weight)) continue;
    return absl::InvalidArgumentError(absl::StrCat(source.path, ": the converted model has no ",
                                                   "place for tensor ", weight.tensor.name));
  }
  return absl::OkStatus();
}

uint64_t HeadDim(const model::ModelSpec& spec, int32_t layer) {
  const model::LayerSpec& parts = spec.layers[static_cast<size_t>(layer)];
  return std::get<model::GroupedQueryAttention>(parts.attention).head_dim;
}

// How the llama architecture stores Llama 3.1's scaling: a divisor for each frequency.
std::optional<OutputTensor> RopeDivisors(const model::ModelSpec& spec) {
  const model::RopeSpec& rope =
      std::get<model::GroupedQueryAttention>(spec.layers[0].attention).rope;
  if (!std::holds_alternative<model::RopeSpec::Llama3Scaling>(rope.scaling)) return std::nullopt;
  OutputTensor tensor;
  const std::vector<float> scaled = model::FrequenciesOf(rope).inverse_frequencies;
  for (size_t i = 0; i < scaled.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / rope.rotary_dim;
    tensor.values.push_back(
        static_cast<float>(std::pow(rope.theta, -exponent) / double{scaled[i]}));
  }
  tensor.declaration = {
      .name = "rope_freqs.weight", .dtype = DType::kF32, .shape = {scaled.size()}};
  return tensor;
}

// The experts' parts arrive one by one and are gathered in stacked tensors.
class GgufGatherer {
 public:
  explicit GgufGatherer(const model::ModelSpec& spec) : spec_(spec) {}

  absl::Status Add(const WeightBinding& binding, WeightPart part, DType dtype) {
    ESSOR_ASSIGN_OR_RETURN(const model::GgufTensor place,
                           model::GgufTensorName(spec_.family, binding.tensor));
    if (place.rope_permuted && binding.rows == 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", binding.tensor,
          ": biases of queries and keys are not supported in GGUF's llama architecture"));
    }
    if (place.rope_permuted) part.interleaved_head_dim = HeadDim(spec_, binding.layer);
    const auto [it, added] = position_.emplace(place.name, tensors_.size());
    if (added) {
      std::vector<uint64_t> shape = FileShape(binding);
      if (place.expert) shape.insert(shape.begin(), 0);
      tensors_.push_back({.declaration = {.name = place.name, .dtype = dtype, .shape = shape},
                          .parts = {},
                          .values = {}});
    }
    OutputTensor& tensor = tensors_[it->second];
    if (place.expert) ++tensor.declaration.shape[0];
    tensor.parts.push_back(std::move(part));
    return absl::OkStatus();
  }

  std::vector<OutputTensor> Take() { return std::move(tensors_); }

 private:
  const model::ModelSpec& spec_;
  std::vector<OutputTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> position_;
};

}  // namespace

bool PublishedLayout(const std::string&) { return false; }

absl::StatusOr<std::vector<OutputTensor>> PlanWeights(const SourceModel& source,
                                                      const model::ModelSpec& output,
                                                      const PlanOptions& options) {
  const SourceIndex index(source);
  GgufGatherer gatherer(output);
  std::vector<OutputTensor> tensors;
  for (const WeightBinding& binding : model::BindingsOf(output, PublishedLayout)) {
    ESSOR_ASSIGN_OR_RETURN(WeightPart part, MakePart(binding, index, options));
    const DType dtype = StoredType(binding, options);
    if (options.to_gguf) {
      ESSOR_RETURN_IF_ERROR(gatherer.Add(binding, std::move(part), dtype));
      continue;
    }
    OutputTensor tensor;
    tensor.declaration = {.name = binding.tensor, .dtype = dtype, .shape = FileShape(binding)};
    tensor.parts.push_back(std::move(part));
    tensors.push_back(std::move(tensor));
  }
  if (options.to_gguf) {
    tensors = gatherer.Take();
    if (std::optional<OutputTensor> divisors = RopeDivisors(output)) {
      tensors.push_back(*std::move(divisors));
    }
  }
  ESSOR_RETURN_IF_ERROR(CheckAllUsed(source, tensors));
  return tensors;
}

}  // namespace essor::client
