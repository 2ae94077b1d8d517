// essor convert: repacks, quantises or upcycles a model.
#include "client/convert/convert.h"

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "client/cli/command.h"
#include "client/cli/progress_line.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

class ConvertCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override {
    app.add_option("--model,source", source_, "Hugging Face directory or .gguf file")
        ->capture_default_str();
    app.add_option("--out,output", output_,
                   "What to write: a file if it ends in .gguf, else a directory")
        ->capture_default_str();
    app.add_option("--to", to_, "Element type of matrices: bf16, f32, or q8_0 (.gguf only)")
        ->capture_default_str();
    app.add_option("--upcycle", upcycle_,
                   "Make a Mixture of Experts: 8x2 is 8 experts, 2 for each token")
        ->capture_default_str();
    perturb_option_ = app.add_option("--perturb", perturb_seed_,
                                     "Seed of noise that makes the upcycled experts differ")
                          ->default_str("no noise");
    app.add_flag("--overwrite", overwrite_, "Replace an existing output");
  }

  absl::Status CheckUsage() const override { return Options().status(); }

  absl::Status Run(const CommandContext&) override {
    ESSOR_ASSIGN_OR_RETURN(client::ConvertOptions options, Options());
    ProgressLine progress("essor convert");
    options.progress = [&](const std::string& line) { progress.Show(line, absl::Now()); };
    return client::ConvertModel(options);
  }

 private:
  // InvalidArgument for bad usage.
  absl::StatusOr<client::ConvertOptions> Options() const {
    if (source_.empty() || output_.empty()) {
      return absl::InvalidArgumentError("say what to convert and where to: essor convert SRC DST");
    }
    client::ConvertOptions options;
    options.source = source_;
    options.output = output_;
    options.overwrite = overwrite_;
    ESSOR_ASSIGN_OR_RETURN(options.to, client::ParseConvertType(to_));
    if (upcycle_.empty()) {
      if (perturb_option_->count() > 0) {
        return absl::InvalidArgumentError("--perturb needs --upcycle");
      }
      return options;
    }
    ESSOR_ASSIGN_OR_RETURN(options.upcycle, client::ParseUpcycle(upcycle_));
    if (perturb_option_->count() > 0) options.upcycle->perturb_seed = perturb_seed_;
    return options;
  }

  std::string source_;
  std::string output_;
  std::string to_ = "bf16";
  std::string upcycle_;
  uint64_t perturb_seed_ = 0;
  bool overwrite_ = false;
  CLI::Option* perturb_option_ = nullptr;
};

}  // namespace

std::unique_ptr<Command> MakeConvertCommand() { return std::make_unique<ConvertCommand>(); }

}  // namespace essor::cli
