// What the tests of families and of their plans share: specs of the configs in tests/data.
#pragma once

#include <fstream>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "model/spec/families.h"
#include "nlohmann/json.hpp"

namespace essor::model {

// `directory` below tests/data: "configs/..." has published shapes, "nano/..." checkpoints.
inline nlohmann::json ReadConfig(const std::string& directory) {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/" + directory + "/config.json");
  EXPECT_TRUE(file.good()) << directory;
  return nlohmann::json::parse(file);
}

inline absl::StatusOr<ModelSpec> SpecOf(const nlohmann::json& config) {
  const auto view = ConfigView::Parse(config.dump(), "config.json");
  EXPECT_TRUE(view.ok()) << view.status();
  return SpecFromConfig(*view);
}

inline ModelSpec LoadSpec(const std::string& directory) {
  const auto spec = SpecOf(ReadConfig(directory));
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

inline const GroupedQueryAttention& AttentionOf(const ModelSpec& spec, size_t layer) {
  return std::get<GroupedQueryAttention>(spec.layers[layer].attention);
}

}  // namespace essor::model
