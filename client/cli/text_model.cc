#include "client/cli/text_model.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/source/model_source.h"

namespace essor::cli {

void AddTextModelFlag(CLI::App& app, std::string& model) {
  app.add_option("--model,model", model,
                 "Model directory or .gguf file; only its tokenizer files are read")
      ->capture_default_str();
}

absl::Status CheckTextModel(const std::string& model) {
  return model.empty() ? absl::InvalidArgumentError("say which model: --model MODEL")
                       : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<model::Tokenizer>> OpenModelTokenizer(const std::string& model) {
  ESSOR_ASSIGN_OR_RETURN(model::TextFiles files, model::OpenTextFiles(model));
  if (files.tokenizer == nullptr) {
    return absl::NotFoundError(absl::StrFormat("%s has no tokenizer", model));
  }
  return std::move(files.tokenizer);
}

absl::Status AtElement(size_t index, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrFormat("stdin: element %d: %s", index,
                                                     std::string(status.message())));
}

}  // namespace essor::cli
