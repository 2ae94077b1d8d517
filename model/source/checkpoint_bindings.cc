#include "model/source/checkpoint_bindings.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/fp8_blocks.h"
#include "model/checkpoint/gguf_names.h"
#include "model/checkpoint/nibble_groups.h"
#include "model/checkpoint/tensor_error.h"
#include "model/spec/families.h"

namespace essor::model {
namespace {

// What the weights bound to one tensor need of it.
struct Demand {
  uint64_t rows = 0;  // in all
  uint64_t cols = 0;
  uint64_t num_weights = 0;
  bool vector = false;
  std::optional<DType> packed_as = {};
  std::string scales = {};  // of packed_as
};

void Add(const WeightBinding& binding, Demand& demand) {
  const uint64_t rows = binding.transposed ? binding.cols : binding.OutputSpan(binding.rows);
  demand.vector = IsVector(binding.role);
  demand.cols = binding.TensorRowElements();
  demand.rows = std::max(demand.rows, binding.first_row + rows);
  demand.num_weights += 1;
  demand.packed_as = binding.packed_as;
  demand.scales = binding.scales;
}

bool HoldsWeights(DType dtype) {
  return dtype != DType::kI64 && dtype != DType::kI32 && dtype != DType::kU8 &&
         dtype != DType::kF8E8M0;
}

std::string DemandText(const Demand& demand) {
  if (demand.vector && demand.rows == 1) return absl::StrCat("[", demand.cols, "]");
  if (demand.num_weights == 1) return absl::StrCat("[", demand.rows, ", ", demand.cols, "]");
  return absl::StrCat("[", demand.rows, ", ", demand.cols, "] (or 3-D with the same rows)");
}

bool Fits(const std::vector<uint64_t>& shape, const Demand& demand) {
  if (shape.empty() || shape.back() != demand.cols) return false;
  // A vector may also be stored as one row (ERNIE's correction biases).
  const bool flat = demand.vector && shape.size() == 1;
  if (demand.num_weights == 1 && shape.size() != 2 && !flat) return false;
  if (shape.size() > 3) return false;
  uint64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) {
    // The sizes of a demand are bounded by the config's limits, so no product comes near 2^64.
    if (shape[i] > demand.rows) return false;
    rows *= shape[i];
  }
  return rows == demand.rows;
}

// Buffers that some exporters save beside the weights, layers that guess ahead, what is not for
// text, and a head that is the embedding again.
bool IsIgnorable(const std::string& name, const ModelSpec& spec) {
  constexpr std::string_view kInverseFrequencies = "rotary_emb.inv_freq";
  if (name.ends_with(kInverseFrequencies)) return true;
  // GGUF's form of the llama3 RoPE scaling, which the config already tells.
  if (name == "rope_freqs.weight") return true;
  constexpr std::string_view kGgufLayer = "blk.";
  if (name.starts_with(kGgufLayer) &&
      IsDraftTensor(spec, "model.layers." + name.substr(kGgufLayer.size()))) {
    return true;
  }
  if (IsDraftTensor(spec, name) || IsUnusedTensor(spec, name)) return true;
  return spec.tied_embeddings &&
         (name == TensorPrefix(spec) + "lm_head.weight" || name == "output.weight");
}

absl::StatusOr<TensorView> FindScales(const TensorView& tensor, const std::string& name,
                                      const Checkpoint& checkpoint) {
  absl::StatusOr<TensorView> scales = checkpoint.Find(name);
  if (!absl::IsNotFound(scales.status())) return scales;
  return TensorError(tensor,
                     absl::StrCat("is ", InfoOf(tensor.dtype).name,
                                  ", but its scales are missing: ", scales.status().message()));
}

// The scales beside an e4m3 tensor exist and fit it.
absl::Status CheckScales(const TensorView& tensor, const Checkpoint& checkpoint) {
  ESSOR_ASSIGN_OR_RETURN(const TensorView scales,
                         FindScales(tensor, Fp8ScaleName(tensor.name), checkpoint));
  return CheckFp8Scales(tensor, scales);
}

// The scales of a 4-bit tensor, and what says its shape where the format has that, exist and fit
// it. Adds their names to `companions`.
absl::Status CheckGroups(const TensorView& tensor, const std::string& scale_name,
                         const Checkpoint& checkpoint,
                         absl::flat_hash_set<std::string>& companions) {
  ESSOR_ASSIGN_OR_RETURN(const TensorView scales, FindScales(tensor, scale_name, checkpoint));
  ESSOR_RETURN_IF_ERROR(CheckNibbleScales(tensor, scales));
  companions.insert(scale_name);
  const std::string shape_name = PackedShapeName(tensor.name);
  if (tensor.dtype != DType::kOffsetI4 || !checkpoint.Contains(shape_name)) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const TensorView shape, checkpoint.Find(shape_name));
  companions.insert(shape_name);
  return CheckPackedShape(tensor, shape);
}

// Sets `stored` and `scales` of the bindings.
absl::Status CheckBindings(const ModelSpec& spec, const Checkpoint& checkpoint,
                           const std::string& config_file, std::vector<WeightBinding>& bindings) {
  // Ordered, so that the first complaint does not depend on hashing.
  std::map<std::string, Demand> demands;
  for (const WeightBinding& binding : bindings) {
    Add(binding, demands[binding.tensor]);
  }
  absl::flat_hash_map<std::string, DType> types;
  absl::flat_hash_set<std::string> companions;  // scales, and shapes of packed tensors
  for (const auto& [name, demand] : demands) {
    absl::StatusOr<TensorView> tensor = checkpoint.Find(name);
    if (absl::IsNotFound(tensor.status())) {
      return absl::InvalidArgumentError(absl::StrCat(
          config_file, " asks for a tensor that is missing: ", tensor.status().message()));
    }
    ESSOR_RETURN_IF_ERROR(tensor.status());
    if (demand.packed_as.has_value()) {
      ESSOR_ASSIGN_OR_RETURN(*tensor, TakeAsNibbles(*tensor, *demand.packed_as));
      ESSOR_RETURN_IF_ERROR(CheckGroups(*tensor, demand.scales, checkpoint, companions));
    }
    if (!HoldsWeights(tensor->dtype)) {
      return TensorError(
          *tensor, absl::StrCat("type ", InfoOf(tensor->dtype).name, " does not hold weights"));
    }
    if (demand.vector && tensor->dtype == DType::kF8E4M3) {
      return TensorError(*tensor, "a vector of type f8_e4m3 is not supported");
    }
    if (!Fits(tensor->shape, demand)) {
      return TensorError(*tensor, absl::StrCat("its shape is ", ShapeText(tensor->shape), ", but ",
                                               config_file, " asks for ", DemandText(demand)));
    }
    types[name] = tensor->dtype;
    if (tensor->dtype != DType::kF8E4M3) continue;
    ESSOR_RETURN_IF_ERROR(CheckScales(*tensor, checkpoint));
    companions.insert(Fp8ScaleName(name));
  }
  for (WeightBinding& binding : bindings) {
    binding.stored = types[binding.tensor];
    if (binding.stored == DType::kF8E4M3) binding.scales = Fp8ScaleName(binding.tensor);
  }

  for (const std::string& name : checkpoint.TensorNames()) {
    if (demands.contains(name) || companions.contains(name) || IsIgnorable(name, spec)) {
      continue;
    }
    ESSOR_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.Find(name));
    return TensorError(tensor, absl::StrCat("the model that ", config_file, " describes (",
                                            spec.family, ") has no place for it"));
  }
  return absl::OkStatus();
}

// Head size of the query or key projection that `binding` is.
uint32_t HeadDim(const ModelSpec& spec, const WeightBinding& binding) {
  return std::get<GroupedQueryAttention>(spec.layers[static_cast<size_t>(binding.layer)].attention)
      .head_dim;
}

// Latent attention's kv_b where the file holds its parts instead (gguf_names.h).
void BindSplitLatent(const GgufFile& file, WeightBinding& binding) {
  const bool key = binding.role == WeightRole::kKeyUp;
  if (!key && binding.role != WeightRole::kValueUp) return;
  const std::string part =
      absl::StrCat("blk.", binding.layer, ".attn_", key ? "k" : "v", "_b.weight");
  if (file.Contains(binding.tensor) || !file.Contains(part)) return;
  binding.tensor = part;
  binding.first_row = static_cast<uint64_t>(binding.head) * binding.rows;
  binding.transposed = false;
}

}  // namespace

absl::StatusOr<std::vector<WeightBinding>> BindCheckpoint(const ModelSpec& spec,
                                                          const Checkpoint& checkpoint,
                                                          const std::string& config_file) {
  std::vector<WeightBinding> bindings =
      BindingsOf(spec, [&](const std::string& name) { return checkpoint.Contains(name); });
  ESSOR_RETURN_IF_ERROR(CheckBindings(spec, checkpoint, config_file, bindings));
  return bindings;
}

absl::StatusOr<std::vector<WeightBinding>> BindGguf(const ModelSpec& spec, const GgufFile& file) {
  // The names without stacking are those that GgufTensorName knows.
  std::vector<WeightBinding> bindings = BindingsOf(spec, [](const std::string&) { return false; });
  for (WeightBinding& binding : bindings) {
    ESSOR_ASSIGN_OR_RETURN(GgufTensor tensor, GgufTensorName(spec.family, binding.tensor));
    if (tensor.rope_permuted) {
      if (binding.rows == 1) {
        return absl::InvalidArgumentError(absl::StrCat(
            file.path(), ": tensor ", tensor.name,
            ": biases of queries and keys are not supported in GGUF's llama architecture"));
      }
      binding.interleaved_head_dim = HeadDim(spec, binding);
    }
    if (tensor.expert.has_value()) binding.first_row = *tensor.expert * binding.rows;
    binding.tensor = std::move(tensor.name);
    BindSplitLatent(file, binding);
  }
  ESSOR_RETURN_IF_ERROR(CheckBindings(spec, file, file.path() + "'s metadata", bindings));
  return bindings;
}

DType PredominantType(const std::vector<WeightBinding>& bindings) {
  std::map<DType, uint64_t> bytes;
  for (const WeightBinding& binding : bindings) {
    if (!binding.stored.has_value()) continue;
    if (IsNibbles(*binding.stored)) return *binding.stored;
    bytes[*binding.stored] += StorageBytes(*binding.stored, binding.rows * binding.cols);
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? DType::kBF16 : most->first;
}

}  // namespace essor::model
