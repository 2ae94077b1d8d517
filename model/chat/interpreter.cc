#include "model/chat/interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/python_format.h"
#include "model/chat/token_stream.h"

namespace essor::model::jinja {
namespace {

// Scopes that macros keep alive, at most this many per rendering.
constexpr size_t kKeptObjectsMax = 100000;
constexpr int kScopeDepthMax = 1000;
// No expression refers to the name, so nobody will look for it.
constexpr NameId kUnusedName = UINT32_MAX;

}  // namespace

const Value* Scope::Find(NameId name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_) {
    for (const auto& [id, value] : scope->variables_) {
      if (id == name) return &value;
    }
  }
  return nullptr;
}

void Scope::Set(NameId name, Value value) {
  for (auto& [id, current] : variables_) {
    if (id != name) continue;
    current = std::move(value);
    return;
  }
  variables_.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const Template& source, const Options& options)
    : source_(source),
      options_(options),
      runtime_(options.runtime),
      loop_name_(IdOf("loop")),
      caller_name_(IdOf("caller")),
      varargs_name_(IdOf("varargs")),
      kwargs_name_(IdOf("kwargs")) {
  for (const std::string& name : FunctionNames()) {
    auto function = std::make_shared<Callable>();
    function->name = name;
    SetGlobal(name, Value(std::move(function)));
  }
}

Interpreter::~Interpreter() {
  for (const std::shared_ptr<Namespace>& space : namespaces_) space->fields = Dict();
  for (const std::unique_ptr<Scope>& scope : captured_scopes_) scope->Clear();
}

NameId Interpreter::IdOf(const std::string& name) const {
  const auto it = std::find(source_.names.begin(), source_.names.end(), name);
  return it == source_.names.end() ? kUnusedName : static_cast<NameId>(it - source_.names.begin());
}

void Interpreter::SetGlobal(const std::string& name, Value value) {
  const NameId id = IdOf(name);
  if (id != kUnusedName) globals_.Set(id, std::move(value));
}

absl::StatusOr<std::string> Interpreter::Run() {
  std::string text;
  out_ = &text;
  auto scope = std::make_unique<Scope>(&globals_);
  const absl::StatusOr<Flow> flow = Execute(source_.body, scope.get());
  Leave(std::move(scope));
  if (flow.ok()) return text;
  const std::string message(flow.status().message());
  if (IsRaisedByTemplate(flow.status())) return absl::InvalidArgumentError(message);
  return absl::InvalidArgumentError(absl::StrFormat("template line %d: %s", error_line_, message));
}

absl::Status Interpreter::EnterLevel() {
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeSteps(1));
  if (depth_ <= options_.depth_max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("recursion deeper than %d levels", options_.depth_max));
}

void Interpreter::Leave(std::unique_ptr<Scope> scope) {
  if (scope->captured()) captured_scopes_.push_back(std::move(scope));
}

absl::Status Interpreter::Write(std::string_view text) {
  if (out_->size() + text.size() > options_.output_bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrFormat("more than %d bytes of output", options_.output_bytes_max));
  }
  out_->append(text);
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Block& block, Scope* scope) {
  const DepthGuard guard(&depth_);
  ESSOR_RETURN_IF_ERROR(EnterLevel());
  for (const Statement& statement : block) {
    ESSOR_ASSIGN_OR_RETURN(const Flow flow, ExecuteStatement(statement, scope));
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteStatement(const Statement& statement,
                                                                Scope* scope) {
  absl::Status charged = runtime_.ChargeSteps(1);
  absl::StatusOr<Flow> flow =
      charged.ok() ? std::visit([&](const auto& node) { return Run(node, scope); }, statement.node)
                   : absl::StatusOr<Flow>(std::move(charged));
  if (!flow.ok()) NoteErrorLine(statement.line);
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Text& node, Scope*) {
  ESSOR_RETURN_IF_ERROR(Write(node.text));
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Output& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value, scope));
  if (const std::string* text = value.as_text()) {
    ESSOR_RETURN_IF_ERROR(Write(*text));
  } else {
    ESSOR_RETURN_IF_ERROR(runtime_.ChargeValue(value));
    ESSOR_RETURN_IF_ERROR(Write(ToText(value)));
  }
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const If& node, Scope* scope) {
  for (const auto& [condition, body] : node.branches) {
    ESSOR_ASSIGN_OR_RETURN(const Value value, Evaluate(*condition, scope));
    if (IsTrue(value)) return Execute(body, scope);
  }
  return Execute(node.otherwise, scope);
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const For& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*node.iterable, scope));
  ESSOR_RETURN_IF_ERROR(RunLoop(node, iterable, 1, scope));
  return Flow::kNormal;
}

absl::StatusOr<std::shared_ptr<const List>> Interpreter::LoopItems(const For& node,
                                                                   const Value& iterable,
                                                                   Scope* scope) {
  if (iterable.is_string()) {
    ESSOR_RETURN_IF_ERROR(runtime_.ChargeBytes(iterable.as_text()->size() * 32));
  }
  ESSOR_ASSIGN_OR_RETURN(std::shared_ptr<const List> items, Iterate(iterable));
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeSteps(items->items.size()));
  if (node.condition == nullptr) return items;
  auto kept = std::make_shared<List>();
  kept->extent = items->extent;
  for (const Value& item : items->items) {
    auto inner = std::make_unique<Scope>(scope);
    ESSOR_RETURN_IF_ERROR(AssignTo(node.target, item, inner.get()));
    ESSOR_ASSIGN_OR_RETURN(const Value passes, Evaluate(*node.condition, inner.get()));
    if (IsTrue(passes)) kept->items.push_back(item);
  }
  return std::shared_ptr<const List>(std::move(kept));
}

absl::Status Interpreter::RunLoop(const For& node, const Value& iterable, int64_t depth,
                                  Scope* scope) {
  auto loop = std::make_shared<Loop>();
  ESSOR_ASSIGN_OR_RETURN(loop->items, LoopItems(node, iterable, scope));
  loop->depth = depth;
  if (node.recursive) {
    ESSOR_RETURN_IF_ERROR(KeepScope(scope));
    loop->statement = &node;
    loop->scope = scope;
  }
  if (loop->items->items.empty()) {
    auto inner = std::make_unique<Scope>(scope);
    const absl::Status status = Execute(node.otherwise, inner.get()).status();
    Leave(std::move(inner));
    return status;
  }
  for (loop->index = 0; loop->index < loop->items->items.size(); ++loop->index) {
    // Each turn begins with no variables of its own.
    auto inner = std::make_unique<Scope>(scope);
    if (loop_name_ != kUnusedName) inner->Set(loop_name_, Value(loop));
    absl::StatusOr<Flow> flow = Flow::kNormal;
    const absl::Status assigned =
        AssignTo(node.target, loop->items->items[loop->index], inner.get());
    if (assigned.ok()) flow = Execute(node.body, inner.get());
    Leave(std::move(inner));
    ESSOR_RETURN_IF_ERROR(assigned);
    ESSOR_RETURN_IF_ERROR(flow.status());
    if (*flow == Flow::kBreak) break;
  }
  // `loop` may have been stored in a namespace; its index stays at the last turn.
  loop->index = std::min(loop->index, loop->items->items.size() - 1);
  return absl::OkStatus();
}

absl::Status Interpreter::AssignTo(const Target& target, const Value& value, Scope* scope) {
  if (target.is_tuple) {
    if (value.is_undefined()) return UndefinedError(value);
    ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Iterate(value));
    if (items->items.size() != target.items.size()) {
      const char* amount = items->items.size() > target.items.size() ? "too many" : "not enough";
      return absl::InvalidArgumentError(
          absl::StrFormat("%s values to unpack (expected %d)", amount, target.items.size()));
    }
    for (size_t i = 0; i < target.items.size(); ++i) {
      ESSOR_RETURN_IF_ERROR(AssignTo(target.items[i], items->items[i], scope));
    }
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    scope->Set(target.name, value);
    return absl::OkStatus();
  }
  const Value* object = scope->Find(target.name);
  Namespace* space = object == nullptr ? nullptr : object->as_namespace();
  if (space == nullptr) {
    return absl::InvalidArgumentError("cannot assign attribute on non-namespace object");
  }
  if (target.attribute[0] == '_') {
    return absl::InvalidArgumentError(
        absl::StrFormat("a namespace takes no attribute '%s'", target.attribute));
  }
  return space->fields.Set(Value(target.attribute), value);
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Assign& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value, scope));
  ESSOR_RETURN_IF_ERROR(AssignTo(node.target, value, scope));
  return Flow::kNormal;
}

absl::StatusOr<std::string> Interpreter::Capture(const Block& block, Scope* scope, Flow* flow) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  auto inner = std::make_unique<Scope>(scope);
  absl::StatusOr<Flow> result = Execute(block, inner.get());
  Leave(std::move(inner));
  out_ = outer;
  ESSOR_RETURN_IF_ERROR(result.status());
  *flow = *result;
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
  return text;
}

absl::StatusOr<Value> Interpreter::ApplyToText(const ExpressionPtr& filter, std::string text,
                                               Scope* scope) {
  if (filter == nullptr) return Value(std::move(text));
  const std::string* const outer = std::exchange(filter_block_text_, &text);
  absl::StatusOr<Value> result = Evaluate(*filter, scope);
  filter_block_text_ = outer;
  return result;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const AssignBlock& node, Scope* scope) {
  Flow flow = Flow::kNormal;
  ESSOR_ASSIGN_OR_RETURN(std::string text, Capture(node.body, scope, &flow));
  if (flow != Flow::kNormal) return flow;
  ESSOR_ASSIGN_OR_RETURN(const Value value, ApplyToText(node.filter, std::move(text), scope));
  ESSOR_RETURN_IF_ERROR(AssignTo(node.target, value, scope));
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const FilterBlock& node, Scope* scope) {
  Flow flow = Flow::kNormal;
  ESSOR_ASSIGN_OR_RETURN(std::string text, Capture(node.body, scope, &flow));
  if (flow != Flow::kNormal) return flow;
  ESSOR_ASSIGN_OR_RETURN(const Value value, ApplyToText(node.filter, std::move(text), scope));
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeValue(value));
  ESSOR_RETURN_IF_ERROR(Write(ToText(value)));
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const With& node, Scope* scope) {
  auto inner = std::make_unique<Scope>(scope);
  absl::StatusOr<Flow> flow = Flow::kNormal;
  for (const auto& [target, expression] : node.assignments) {
    // The values are those of the block around, not of the targets to the left.
    const absl::StatusOr<Value> value = Evaluate(*expression, scope);
    const absl::Status status = value.ok() ? AssignTo(target, *value, inner.get()) : value.status();
    if (!status.ok()) {
      flow = status;
      break;
    }
  }
  if (flow.ok()) flow = Execute(node.body, inner.get());
  Leave(std::move(inner));
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Generation& node, Scope* scope) {
  auto inner = std::make_unique<Scope>(scope);
  absl::StatusOr<Flow> flow = Execute(node.body, inner.get());
  Leave(std::move(inner));
  return flow;
}

absl::Status Interpreter::KeepScope(Scope* scope) {
  if (captured_scopes_.size() >= kKeptObjectsMax || scope->depth() >= kScopeDepthMax) {
    return absl::InvalidArgumentError("too many macros");
  }
  for (Scope* s = scope; s != nullptr && !s->captured(); s = s->parent()) s->Capture();
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::MakeMacro(const MacroDefinition& definition, Scope* scope) {
  ESSOR_RETURN_IF_ERROR(KeepScope(scope));
  auto macro = std::make_shared<Callable>();
  macro->kind = Callable::Kind::kMacro;
  macro->name = definition.name;
  macro->macro = &definition;
  macro->scope = scope;
  return Value(std::move(macro));
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const DefineMacro& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(Value macro, MakeMacro(*node.macro, scope));
  scope->Set(node.macro->name_id, std::move(macro));
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const CallBlock& node, Scope* scope) {
  const auto& call = std::get<jinja::Call>(node.call->node);
  ESSOR_ASSIGN_OR_RETURN(const Value callee, Evaluate(*call.callee, scope));
  ESSOR_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(call.arguments, scope));
  ESSOR_ASSIGN_OR_RETURN(Value caller, MakeMacro(*node.caller, scope));
  arguments.keyword.emplace_back("caller", std::move(caller));
  ESSOR_ASSIGN_OR_RETURN(const Value result, CallValue(callee, arguments));
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeValue(result));
  ESSOR_RETURN_IF_ERROR(Write(ToText(result)));
  return Flow::kNormal;
}

}  // namespace essor::model::jinja
