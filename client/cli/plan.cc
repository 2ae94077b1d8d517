// essor plan: which rank holds what, and how much memory that takes.
#include <cstdio>
#include <memory>
#include <string>

#include "client/cli/command.h"
#include "client/plan/plan_command.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

class PlanCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override {
    const auto add = [&](const char* name, auto& value, const char* help) {
      app.add_option(name, value, help)->capture_default_str();
    };
    add("--model,model", plan_.model, "Model directory, config.json or .gguf; no weights are read");
    add("--nodes", plan_.nodes, "Machines");
    add("--devices", plan_.devices, "Devices of each machine");
    add("--device-memory", plan_.device_memory, "Memory of each device, e.g. 80GB");
    add("--plan", plan_.plan, "pp=P,dp=D,tp=T,ep=E; without: the best one is chosen");
    add("--weights", plan_.weights,
        "How matrices are stored: auto, f32, bf16, f8_e4m3, q8_0, q4_1, f4_e2m1 or i4");
    add("--kv-dtype", plan_.kv_dtype,
        "How keys and values are stored: float32, bfloat16, fp8 or int8");
    add("--max-context", plan_.max_context_tokens,
        "Most tokens of one sequence; 0 = the model's own limit");
    add("--max-running-requests", plan_.max_sequences, "Sequences that are extended side by side");
    add("--max-step-tokens", plan_.max_step_tokens, "Token budget of one step");
    add("--batch", plan_.batch, "Sequences side by side, for the predicted speed");
    add("--context", plan_.context_tokens, "Tokens of each of them, for the predicted speed");
    app.add_flag("--json", plan_.json, "Print JSON");
  }

  absl::Status CheckUsage() const override {
    if (plan_.model.empty()) return absl::InvalidArgumentError("say which model: --model MODEL");
    return client::CheckPlanCommand(plan_);
  }

  absl::Status Run(const CommandContext&) override {
    ESSOR_ASSIGN_OR_RETURN(const std::string text, client::RenderPlan(plan_));
    std::fwrite(text.data(), 1, text.size(), stdout);
    return absl::OkStatus();
  }

 private:
  client::PlanCommand plan_;
};

}  // namespace

std::unique_ptr<Command> MakePlanCommand() { return std::make_unique<PlanCommand>(); }

}  // namespace essor::cli
