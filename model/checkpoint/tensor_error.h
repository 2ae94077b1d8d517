// How errors name a tensor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint/checkpoint.h"

namespace essor::model {

// "[2, 3]"
inline std::string ShapeText(const std::vector<uint64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// InvalidArgument "FILE: tensor NAME: <problem>".
inline absl::Status TensorError(const TensorView& tensor, const std::string& problem) {
  return absl::InvalidArgumentError(
      absl::StrCat(tensor.file, ": tensor ", tensor.name, ": ", problem));
}

}  // namespace essor::model
