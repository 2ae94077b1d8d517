// Runs a template's syntax tree.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/chat/ast.h"
#include "model/chat/builtins.h"
#include "model/chat/runtime.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

// Names and their values in one block. A name that is not here is looked for in the parent, which
// is the block around it in the source (for a macro: around its definition).
class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent), depth_(parent ? parent->depth_ + 1 : 0) {}

  // Null when neither this scope nor one around it has the name.
  const Value* Find(NameId name) const;
  void Set(NameId name, Value value);

  Scope* parent() const { return parent_; }
  int depth() const { return depth_; }
  // A macro refers to this scope, so it has to live as long as the rendering.
  bool captured() const { return captured_; }
  void Capture() { captured_ = true; }
  void Clear() { variables_.clear(); }

 private:
  std::vector<std::pair<NameId, Value>> variables_;
  Scope* parent_;
  int depth_;
  bool captured_ = false;
};

// One rendering of one template. Use once, from one thread. `source` must outlive it.
class Interpreter {
 public:
  struct Options {
    Runtime::Options runtime;
    size_t output_bytes_max = 0;
    int depth_max = 0;  // nested expressions, blocks and calls being evaluated
  };

  Interpreter(const Template& source, const Options& options);
  // Breaks the reference cycles that namespaces can form.
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  void SetGlobal(const std::string& name, Value value);

  // The rendered text. InvalidArgument: "template line N: ..." or, for raise_exception(), the
  // template's own message.
  absl::StatusOr<std::string> Run();

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  // Statements (interpreter.cc).
  absl::StatusOr<Flow> Execute(const Block& block, Scope* scope);
  absl::StatusOr<Flow> ExecuteStatement(const Statement& statement, Scope* scope);
  absl::StatusOr<Flow> Run(const Text& node, Scope* scope);
  absl::StatusOr<Flow> Run(const Output& node, Scope* scope);
  absl::StatusOr<Flow> Run(const If& node, Scope* scope);
  absl::StatusOr<Flow> Run(const For& node, Scope* scope);
  absl::StatusOr<Flow> Run(const Assign& node, Scope* scope);
  absl::StatusOr<Flow> Run(const AssignBlock& node, Scope* scope);
  absl::StatusOr<Flow> Run(const DefineMacro& node, Scope* scope);
  absl::StatusOr<Flow> Run(const CallBlock& node, Scope* scope);
  absl::StatusOr<Flow> Run(const FilterBlock& node, Scope* scope);
  absl::StatusOr<Flow> Run(const With& node, Scope* scope);
  absl::StatusOr<Flow> Run(const Generation& node, Scope* scope);
  absl::StatusOr<Flow> Run(const Break&, Scope*) { return Flow::kBreak; }
  absl::StatusOr<Flow> Run(const Continue&, Scope*) { return Flow::kContinue; }

  absl::Status RunLoop(const For& node, const Value& iterable, int64_t depth, Scope* scope);
  absl::StatusOr<std::shared_ptr<const List>> LoopItems(const For& node, const Value& iterable,
                                                        Scope* scope);
  absl::Status AssignTo(const Target& target, const Value& value, Scope* scope);
  absl::Status Write(std::string_view text);
  // What `block` writes, in a scope of its own inside `scope`; `flow` as the block ended.
  absl::StatusOr<std::string> Capture(const Block& block, Scope* scope, Flow* flow);
  absl::StatusOr<Value> ApplyToText(const ExpressionPtr& filter, std::string text, Scope* scope);
  absl::StatusOr<Value> MakeMacro(const MacroDefinition& definition, Scope* scope);

  // Expressions (evaluation.cc).
  absl::StatusOr<Value> Evaluate(const Expression& expression, Scope* scope);
  absl::StatusOr<Value> Eval(const Literal& node, Scope* scope);
  absl::StatusOr<Value> Eval(const NameReference& node, Scope* scope);
  absl::StatusOr<Value> Eval(const ListDisplay& node, Scope* scope);
  absl::StatusOr<Value> Eval(const DictDisplay& node, Scope* scope);
  absl::StatusOr<Value> Eval(const GetAttribute& node, Scope* scope);
  absl::StatusOr<Value> Eval(const GetItem& node, Scope* scope);
  absl::StatusOr<Value> Eval(const GetSlice& node, Scope* scope);
  absl::StatusOr<Value> Eval(const jinja::Call& node, Scope* scope);
  absl::StatusOr<Value> Eval(const ApplyFilter& node, Scope* scope);
  absl::StatusOr<Value> Eval(const ApplyTest& node, Scope* scope);
  absl::StatusOr<Value> Eval(const Unary& node, Scope* scope);
  absl::StatusOr<Value> Eval(const Binary& node, Scope* scope);
  absl::StatusOr<Value> Eval(const Logic& node, Scope* scope);
  absl::StatusOr<Value> Eval(const Comparison& node, Scope* scope);
  absl::StatusOr<Value> Eval(const Concatenation& node, Scope* scope);
  absl::StatusOr<Value> Eval(const Conditional& node, Scope* scope);

  absl::StatusOr<CallArguments> EvaluateArguments(const Arguments& arguments, Scope* scope);
  absl::StatusOr<Value> CallValue(const Value& callee, const CallArguments& arguments);
  absl::StatusOr<Value> CallMacro(const Callable& callable, const CallArguments& arguments);
  absl::Status BindParameters(const MacroDefinition& macro, const CallArguments& arguments,
                              Scope* scope);
  absl::StatusOr<Value> CallLoop(const Loop& loop, const CallArguments& arguments);

  absl::Status EnterLevel();
  // Lets `scope` and those around it live as long as the rendering, for what refers to them.
  absl::Status KeepScope(Scope* scope);
  // Keeps a scope that a macro refers to, otherwise lets it go.
  void Leave(std::unique_ptr<Scope> scope);
  // The first failure decides which line is reported.
  void NoteErrorLine(int line) {
    if (error_line_ == 0) error_line_ = line;
  }
  NameId IdOf(const std::string& name) const;

  const Template& source_;
  Options options_;
  Runtime runtime_;
  Scope globals_{nullptr};
  std::string* out_ = nullptr;
  int depth_ = 0;
  int error_line_ = 0;
  NameId loop_name_;
  NameId caller_name_;
  NameId varargs_name_;
  NameId kwargs_name_;
  const std::string* filter_block_text_ = nullptr;
  std::vector<std::unique_ptr<Scope>> captured_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace essor::model::jinja
