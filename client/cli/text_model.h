// What the commands share that need only a model's tokenizer files.
#pragma once

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::cli {

void AddTextModelFlag(CLI::App& app, std::string& model);
// InvalidArgument when there is none.
absl::Status CheckTextModel(const std::string& model);
// NotFound naming the path when the model has no tokenizer.
absl::StatusOr<std::unique_ptr<model::Tokenizer>> OpenModelTokenizer(const std::string& model);
// `status` with the index of the element of stdin that caused it.
absl::Status AtElement(size_t index, const absl::Status& status);

}  // namespace essor::cli
