// essor tokenize: texts to token ids, as the Hugging Face tokenizers library encodes them.
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

class TokenizeCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override {
    AddTextModelFlag(app, model_);
    app.add_flag("--add-special", add_special_,
                 "Add what the tokenizer puts around a text, for example BOS");
  }

  absl::Status CheckUsage() const override { return CheckTextModel(model_); }

  absl::Status Run(const CommandContext&) override {
    ESSOR_ASSIGN_OR_RETURN(const auto tokenizer, OpenModelTokenizer(model_));
    ESSOR_ASSIGN_OR_RETURN(const std::string json, ReadStdin());
    ESSOR_ASSIGN_OR_RETURN(const std::vector<std::string> texts, ParseTexts(json, "stdin"));
    JsonOutput output;
    output.StartArray();
    for (size_t i = 0; i < texts.size(); ++i) {
      // Special tokens written out in a text count, as in that library.
      const auto ids =
          tokenizer->Encode(texts[i], {.add_special = add_special_, .parse_special = true});
      if (!ids.ok()) return AtElement(i, ids.status());
      output.Value(std::span<const uint32_t>(*ids));
    }
    output.EndArray();
    output.Print();
    return absl::OkStatus();
  }

 private:
  std::string model_;
  bool add_special_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeTokenizeCommand() { return std::make_unique<TokenizeCommand>(); }

}  // namespace essor::cli
