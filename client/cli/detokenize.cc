// essor detokenize: token ids to texts.
#include <memory>
#include <string>
#include <vector>

#include "client/cli/command.h"
#include "client/cli/json_input.h"
#include "client/cli/json_output.h"
#include "client/cli/text_model.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

class DetokenizeCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override {
    AddTextModelFlag(app, model_);
    app.add_flag("--skip-special", skip_special_, "Leave special tokens out of the texts");
  }

  absl::Status CheckUsage() const override { return CheckTextModel(model_); }

  absl::Status Run(const CommandContext&) override {
    ESSOR_ASSIGN_OR_RETURN(const auto tokenizer, OpenModelTokenizer(model_));
    ESSOR_ASSIGN_OR_RETURN(const std::string json, ReadStdin());
    ESSOR_ASSIGN_OR_RETURN(const auto sequences, ParseTokenArrays(json, "stdin"));
    JsonOutput output;
    output.StartArray();
    for (size_t i = 0; i < sequences.size(); ++i) {
      const auto text = tokenizer->Decode(sequences[i], skip_special_);
      if (!text.ok()) return AtElement(i, text.status());
      output.Value(std::string_view(*text));
    }
    output.EndArray();
    output.Print();
    return absl::OkStatus();
  }

 private:
  std::string model_;
  bool skip_special_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeDetokenizeCommand() { return std::make_unique<DetokenizeCommand>(); }

}  // namespace essor::cli
