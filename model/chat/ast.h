// The syntax tree of a template. Names are numbers into Template::names.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/chat/builtins.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

using NameId = uint32_t;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Literal {
  Value value;
};
struct NameReference {
  NameId name = 0;
};
struct ListDisplay {
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
};
struct DictDisplay {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct GetAttribute {
  ExpressionPtr object;
  std::string name;
};
struct GetItem {
  ExpressionPtr object;
  ExpressionPtr index;
};
struct GetSlice {
  ExpressionPtr object;
  ExpressionPtr start;  // null: left out
  ExpressionPtr stop;
  ExpressionPtr step;
};
struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keyword;
  ExpressionPtr positional_list;  // *list, behind the others; null: none
  ExpressionPtr keyword_dict;     // **dict
};
struct Call {
  ExpressionPtr callee;
  Arguments arguments;
};
struct ApplyFilter {
  ExpressionPtr object;  // null: the text of the block around it
  FilterFunction function = nullptr;
  Arguments arguments;
};
struct ApplyTest {
  ExpressionPtr object;
  TestFunction function = nullptr;
  Arguments arguments;
  bool negated = false;
};
enum class UnaryOperator { kNot, kMinus, kPlus };
struct Unary {
  UnaryOperator op;
  ExpressionPtr operand;
};
enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
struct Binary {
  BinaryOperator op;
  ExpressionPtr left;
  ExpressionPtr right;
};
enum class LogicOperator { kAnd, kOr };
struct Logic {
  LogicOperator op;
  ExpressionPtr left;
  ExpressionPtr right;
};
enum class CompareOperator {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};
// a < b < c: each operand once.
struct Comparison {
  ExpressionPtr first;
  std::vector<std::pair<CompareOperator, ExpressionPtr>> rest;
};
struct Concatenation {
  std::vector<ExpressionPtr> parts;
};
struct Conditional {
  ExpressionPtr condition;
  ExpressionPtr then;
  ExpressionPtr otherwise;  // null: undefined
};

struct Expression {
  int line = 0;
  int depth = 1;  // 1 + that of the deepest operand
  std::variant<Literal, NameReference, ListDisplay, DictDisplay, GetAttribute, GetItem, GetSlice,
               Call, ApplyFilter, ApplyTest, Unary, Binary, Logic, Comparison, Concatenation,
               Conditional>
      node;
};

// A node with its depth counted.
struct Statement;
using Block = std::vector<Statement>;

// What `set`, `for` and `with` assign to: a name, an attribute of a namespace, or a tuple of
// targets.
struct Target {
  NameId name = 0;
  std::string attribute;      // of the namespace `name`, when not empty
  std::vector<Target> items;  // of a tuple, when not empty
  bool is_tuple = false;
};

struct MacroDefinition {
  NameId name_id = 0;
  std::string name;
  std::vector<NameId> parameters;
  std::vector<std::string> parameter_names;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Block body;
  // Which of these the body mentions: only then may a call pass them.
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct Text {
  std::string text;
};
struct Output {
  ExpressionPtr value;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
struct For {
  Target target;
  ExpressionPtr iterable;
  ExpressionPtr condition;  // null: all items
  Block body;
  Block otherwise;
  bool recursive = false;
};
struct Assign {
  Target target;
  ExpressionPtr value;
};
struct AssignBlock {
  Target target;
  ExpressionPtr filter;  // null: the text as it is
  Block body;
};
struct DefineMacro {
  std::unique_ptr<MacroDefinition> macro;
};
struct CallBlock {
  std::unique_ptr<MacroDefinition> caller;
  ExpressionPtr call;
};
struct FilterBlock {
  ExpressionPtr filter;
  Block body;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Block body;
};
struct Generation {
  Block body;
};
struct Break {};
struct Continue {};

struct Statement {
  int line = 0;
  std::variant<Text, Output, If, For, Assign, AssignBlock, DefineMacro, CallBlock, FilterBlock,
               With, Generation, Break, Continue>
      node;
};

struct Template {
  Block body;
  std::vector<std::string> names;
};

}  // namespace essor::model::jinja
