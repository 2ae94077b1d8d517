// Expressions and calls; the statements are in interpreter.cc.
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/interpreter.h"
#include "model/chat/operators.h"
#include "model/chat/python_format.h"
#include "model/chat/token_stream.h"

namespace essor::model::jinja {
namespace {

constexpr size_t kNamespacesMax = 100000;

}  // namespace

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression, Scope* scope) {
  const DepthGuard guard(&depth_);
  absl::Status entered = EnterLevel();
  absl::StatusOr<Value> result =
      entered.ok()
          ? std::visit([&](const auto& node) { return Eval(node, scope); }, expression.node)
          : absl::StatusOr<Value>(std::move(entered));
  if (!result.ok()) NoteErrorLine(expression.line);
  return result;
}

absl::StatusOr<Value> Interpreter::Eval(const Literal& node, Scope*) { return node.value; }

absl::StatusOr<Value> Interpreter::Eval(const NameReference& node, Scope* scope) {
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeSteps(static_cast<uint64_t>(scope->depth()) / 8));
  const Value* value = scope->Find(node.name);
  if (value != nullptr) return *value;
  return Value::MakeUndefined(absl::StrFormat("'%s' is undefined", source_.names[node.name]));
}

absl::StatusOr<Value> Interpreter::Eval(const ListDisplay& node, Scope* scope) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) {
    ESSOR_ASSIGN_OR_RETURN(Value value, Evaluate(*item, scope));
    items.push_back(std::move(value));
  }
  return MakeList(std::move(items), node.is_tuple ? ListKind::kTuple : ListKind::kList);
}

absl::StatusOr<Value> Interpreter::Eval(const DictDisplay& node, Scope* scope) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, item] : node.entries) {
    ESSOR_ASSIGN_OR_RETURN(const Value key_value, Evaluate(*key, scope));
    ESSOR_RETURN_IF_ERROR(runtime_.ChargeValue(key_value));
    ESSOR_ASSIGN_OR_RETURN(Value value, Evaluate(*item, scope));
    ESSOR_RETURN_IF_ERROR(dict->Set(key_value, std::move(value)));
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

absl::StatusOr<Value> Interpreter::Eval(const GetAttribute& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object, scope));
  return LookUpAttribute(object, node.name);
}

absl::StatusOr<Value> Interpreter::Eval(const GetItem& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object, scope));
  ESSOR_ASSIGN_OR_RETURN(const Value index, Evaluate(*node.index, scope));
  return LookUpItem(runtime_, object, index);
}

absl::StatusOr<Value> Interpreter::Eval(const GetSlice& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object, scope));
  Value parts[3];
  const ExpressionPtr* sources[3] = {&node.start, &node.stop, &node.step};
  for (int i = 0; i < 3; ++i) {
    if (*sources[i] == nullptr) continue;
    ESSOR_ASSIGN_OR_RETURN(parts[i], Evaluate(**sources[i], scope));
  }
  return LookUpSlice(runtime_, object, parts[0], parts[1], parts[2]);
}

absl::StatusOr<Value> Interpreter::Eval(const ApplyFilter& node, Scope* scope) {
  Value object;
  if (node.object != nullptr) {
    ESSOR_ASSIGN_OR_RETURN(object, Evaluate(*node.object, scope));
  } else {
    object = Value(*filter_block_text_);
  }
  ESSOR_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node.arguments, scope));
  return node.function(runtime_, object, arguments);
}

absl::StatusOr<Value> Interpreter::Eval(const ApplyTest& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object, scope));
  ESSOR_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node.arguments, scope));
  ESSOR_ASSIGN_OR_RETURN(const bool result, node.function(runtime_, object, arguments));
  return Value(result != node.negated);
}

absl::StatusOr<Value> Interpreter::Eval(const Unary& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value operand, Evaluate(*node.operand, scope));
  if (node.op == UnaryOperator::kNot) return Value(!IsTrue(operand));
  return ApplySign(node.op == UnaryOperator::kMinus, operand);
}

absl::StatusOr<Value> Interpreter::Eval(const Binary& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value left, Evaluate(*node.left, scope));
  ESSOR_ASSIGN_OR_RETURN(const Value right, Evaluate(*node.right, scope));
  return ApplyBinary(runtime_, node.op, left, right);
}

absl::StatusOr<Value> Interpreter::Eval(const Logic& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(Value left, Evaluate(*node.left, scope));
  const bool decided = IsTrue(left) == (node.op == LogicOperator::kOr);
  if (decided) return left;
  return Evaluate(*node.right, scope);
}

absl::StatusOr<Value> Interpreter::Eval(const Comparison& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(Value left, Evaluate(*node.first, scope));
  for (const auto& [op, operand] : node.rest) {
    ESSOR_ASSIGN_OR_RETURN(Value right, Evaluate(*operand, scope));
    ESSOR_ASSIGN_OR_RETURN(const bool holds, ApplyComparison(runtime_, op, left, right));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::Eval(const Concatenation& node, Scope* scope) {
  std::string text;
  for (const ExpressionPtr& part : node.parts) {
    ESSOR_ASSIGN_OR_RETURN(const Value value, Evaluate(*part, scope));
    ESSOR_RETURN_IF_ERROR(runtime_.ChargeValue(value));
    text.append(ToText(value));
  }
  return Value(std::move(text));
}

absl::StatusOr<Value> Interpreter::Eval(const Conditional& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.condition, scope));
  if (IsTrue(condition)) return Evaluate(*node.then, scope);
  if (node.otherwise != nullptr) return Evaluate(*node.otherwise, scope);
  return Value::MakeUndefined("the inline if-expression evaluated to false and has no else");
}

absl::StatusOr<CallArguments> Interpreter::EvaluateArguments(const Arguments& arguments,
                                                             Scope* scope) {
  CallArguments result;
  result.positional.reserve(arguments.positional.size());
  for (const ExpressionPtr& argument : arguments.positional) {
    ESSOR_ASSIGN_OR_RETURN(Value value, Evaluate(*argument, scope));
    result.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : arguments.keyword) {
    ESSOR_ASSIGN_OR_RETURN(Value value, Evaluate(*argument, scope));
    result.keyword.emplace_back(name, std::move(value));
  }
  if (arguments.positional_list != nullptr) {
    ESSOR_ASSIGN_OR_RETURN(const Value list, Evaluate(*arguments.positional_list, scope));
    ESSOR_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Iterate(list));
    ESSOR_RETURN_IF_ERROR(runtime_.ChargeSteps(items->items.size()));
    result.positional.insert(result.positional.end(), items->items.begin(), items->items.end());
  }
  if (arguments.keyword_dict != nullptr) {
    ESSOR_ASSIGN_OR_RETURN(const Value value, Evaluate(*arguments.keyword_dict, scope));
    const Dict* dict = value.as_dict();
    if (dict == nullptr) return TypeError("argument after ** must be a mapping");
    ESSOR_RETURN_IF_ERROR(runtime_.ChargeSteps(dict->size()));
    for (const auto& [key, item] : dict->entries()) {
      if (!key.is_string()) return TypeError("keywords must be strings");
      result.keyword.emplace_back(*key.as_text(), item);
    }
  }
  return result;
}

absl::StatusOr<Value> Interpreter::Eval(const jinja::Call& node, Scope* scope) {
  ESSOR_ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.callee, scope));
  ESSOR_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node.arguments, scope));
  return CallValue(callee, arguments);
}

absl::StatusOr<Value> Interpreter::CallValue(const Value& callee, const CallArguments& arguments) {
  if (callee.is_undefined()) return UndefinedError(callee);
  if (const Loop* loop = callee.as_loop()) return CallLoop(*loop, arguments);
  Callable* callable = callee.as_callable();
  if (callable == nullptr) {
    return TypeError(absl::StrFormat("'%s' object is not callable", TypeName(callee)));
  }
  switch (callable->kind) {
    case Callable::Kind::kFunction:
      if (namespaces_.size() >= kNamespacesMax) {
        return absl::InvalidArgumentError("too many namespaces");
      }
      return CallFunction(runtime_, callable->name, arguments, &namespaces_);
    case Callable::Kind::kMacro:
      return CallMacro(*callable, arguments);
    case Callable::Kind::kMethod:
      return CallMethod(runtime_, callable->receiver, callable->name, arguments);
    case Callable::Kind::kJoiner:
      break;
  }
  return Value(std::exchange(callable->used, true) ? callable->separator : std::string());
}

absl::Status Interpreter::BindParameters(const MacroDefinition& macro,
                                         const CallArguments& arguments, Scope* scope) {
  const size_t count = macro.parameters.size();
  std::vector<bool> bound(count, false);
  std::vector<Value> extra;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < count) {
      scope->Set(macro.parameters[i], arguments.positional[i]);
      bound[i] = true;
    } else {
      extra.push_back(arguments.positional[i]);
    }
  }
  auto extra_keywords = std::make_shared<Dict>();
  bool has_caller = false;
  for (const auto& [name, value] : arguments.keyword) {
    size_t i = 0;
    while (i < count && macro.parameter_names[i] != name) ++i;
    if (i < count && !bound[i]) {
      scope->Set(macro.parameters[i], value);
      bound[i] = true;
    } else if (name == "caller" && macro.uses_caller) {
      scope->Set(caller_name_, value);
      has_caller = true;
    } else if (macro.uses_kwargs && i == count) {
      ESSOR_RETURN_IF_ERROR(extra_keywords->Set(Value(name), value));
    } else {
      return TypeError(
          absl::StrFormat("macro '%s' takes no keyword argument '%s'", macro.name, name));
    }
  }
  if (!extra.empty() && !macro.uses_varargs) {
    return TypeError(
        absl::StrFormat("macro '%s' takes not more than %d argument(s)", macro.name, count));
  }
  if (macro.uses_varargs) {
    ESSOR_ASSIGN_OR_RETURN(Value varargs, MakeList(std::move(extra), ListKind::kTuple));
    scope->Set(varargs_name_, std::move(varargs));
  }
  if (macro.uses_kwargs) {
    scope->Set(kwargs_name_, Value(std::shared_ptr<const Dict>(std::move(extra_keywords))));
  }
  if (macro.uses_caller && !has_caller) {
    scope->Set(caller_name_, Value::MakeUndefined("No caller defined"));
  }
  const size_t first_default = count - macro.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    if (bound[i]) continue;
    if (i < first_default) {
      scope->Set(macro.parameters[i],
                 Value::MakeUndefined(
                     absl::StrFormat("parameter '%s' was not provided", macro.parameter_names[i])));
      continue;
    }
    ESSOR_ASSIGN_OR_RETURN(Value value, Evaluate(*macro.defaults[i - first_default], scope));
    scope->Set(macro.parameters[i], std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallMacro(const Callable& callable,
                                             const CallArguments& arguments) {
  auto scope = std::make_unique<Scope>(callable.scope);
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  absl::Status status = BindParameters(*callable.macro, arguments, scope.get());
  if (status.ok()) status = Execute(callable.macro->body, scope.get()).status();
  out_ = outer;
  Leave(std::move(scope));
  ESSOR_RETURN_IF_ERROR(status);
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
  return Value(std::move(text));
}

absl::StatusOr<Value> Interpreter::CallLoop(const Loop& loop, const CallArguments& arguments) {
  if (loop.statement == nullptr) {
    return TypeError("the loop must have the 'recursive' marker to be called");
  }
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("loop", arguments, {"iterable"}, 1));
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  const absl::Status status =
      RunLoop(*static_cast<const For*>(loop.statement), *bound[0], loop.depth + 1, loop.scope);
  out_ = outer;
  ESSOR_RETURN_IF_ERROR(status);
  ESSOR_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
  return Value(std::move(text));
}

}  // namespace essor::model::jinja
