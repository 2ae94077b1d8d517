// Values of the template language, which are Python's: what Jinja templates see under transformers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace essor::model::jinja {

class Value;
struct List;
class Dict;
struct Namespace;
struct Callable;
struct Loop;

// A name or attribute that is not there. Prints as nothing, is false, iterates as empty; `reason`
// is the error message of every other use.
struct Undefined {
  std::string reason;
};
struct None {
  bool operator==(const None&) const = default;
};
// UTF-8. `markup` is what the `safe` and `escape` filters set: `+` escapes what it is joined with.
struct String {
  std::string text;
  bool markup = false;
};
// An integer beyond 64 bits, in decimal. It prints, compares and serialises; no arithmetic.
struct BigInt {
  std::string digits;
  bool operator==(const BigInt&) const = default;
};

// Immutable (but for Namespace, Callable and Loop, which belong to one rendering) and cheap to
// copy.
class Value {
 public:
  using Variant =
      std::variant<std::shared_ptr<const Undefined>, None, bool, int64_t, double,
                   std::shared_ptr<const String>, std::shared_ptr<const BigInt>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<Namespace>, std::shared_ptr<Callable>, std::shared_ptr<Loop>>;

  Value() : variant_(None{}) {}
  Value(None none) : variant_(none) {}            // NOLINT: implicit, values are literals in tables
  Value(bool value) : variant_(value) {}          // NOLINT
  Value(int64_t value) : variant_(value) {}       // NOLINT
  Value(int value) : variant_(int64_t{value}) {}  // NOLINT
  Value(double value) : variant_(value) {}        // NOLINT
  Value(std::string text)                         // NOLINT
      : variant_(std::make_shared<const String>(String{std::move(text)})) {}
  Value(std::string_view text) : Value(std::string(text)) {}  // NOLINT
  Value(const char* text) : Value(std::string(text)) {}       // NOLINT
  template <typename T>
  requires std::is_constructible_v<Variant, std::shared_ptr<T>> Value(std::shared_ptr<T> object)
      : variant_(std::move(object)) {}  // NOLINT

  static Value Markup(std::string text) {
    return Value(std::make_shared<const String>(String{std::move(text), true}));
  }
  static Value MakeUndefined(std::string reason) {
    return Value(std::make_shared<const Undefined>(Undefined{std::move(reason)}));
  }

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(variant_);
  }
  bool is_undefined() const { return Is<std::shared_ptr<const Undefined>>(); }
  bool is_none() const { return Is<None>(); }
  bool is_bool() const { return Is<bool>(); }
  bool is_int() const { return Is<int64_t>(); }
  bool is_float() const { return Is<double>(); }
  bool is_string() const { return Is<std::shared_ptr<const String>>(); }
  // int, bool (a kind of int in Python) or float within 64 bits.
  bool is_small_number() const { return is_bool() || is_int() || is_float(); }

  // The alternatives as pointers; null when the value is something else.
  const bool* as_bool() const { return std::get_if<bool>(&variant_); }
  const int64_t* as_int() const { return std::get_if<int64_t>(&variant_); }
  const double* as_float() const { return std::get_if<double>(&variant_); }
  const std::string* as_text() const;
  const Undefined* as_undefined() const { return Object<const Undefined>(); }
  const String* as_string() const { return Object<const String>(); }
  const BigInt* as_big_int() const { return Object<const BigInt>(); }
  const List* as_list() const { return Object<const List>(); }
  const Dict* as_dict() const { return Object<const Dict>(); }
  Namespace* as_namespace() const { return Object<Namespace>(); }
  Callable* as_callable() const { return Object<Callable>(); }
  Loop* as_loop() const { return Object<Loop>(); }

  // The number of a bool or int as int64; only when is_bool() or is_int().
  int64_t ToInt() const { return is_bool() ? int64_t{*as_bool()} : *as_int(); }
  // Only when is_small_number().
  double ToDouble() const { return is_float() ? *as_float() : static_cast<double>(ToInt()); }

  const Variant& variant() const { return variant_; }

 private:
  template <typename T>
  T* Object() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&variant_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Variant variant_;
};

// How deep lists, dicts and loops may hold each other: everything that walks a value recurses.
inline constexpr int kValueDepthMax = 200;
// How large a value may be when written out. Lists share their items, so a few lines of template
// can make one that would take ages to print.
inline constexpr size_t kValueWeightMax = size_t{256} << 20;

// The size of a value as a tree.
struct Extent {
  int depth = 0;      // 0 for scalars
  size_t weight = 8;  // bytes, roughly, without sharing

  // With `item` as one more member.
  Extent Plus(const Extent& item) const;
  // InvalidArgument beyond the limits above.
  absl::Status Check() const;
};
Extent ExtentOf(const Value& value);

// The Python types that are sequences of values here.
enum class ListKind { kList, kTuple, kKeys, kValues, kItems, kGenerator };
struct List {
  std::vector<Value> items;
  ListKind kind = ListKind::kList;
  Extent extent = {.depth = 1};
};
// InvalidArgument beyond the limits of Extent.
absl::StatusOr<Value> MakeList(std::vector<Value> items, ListKind kind = ListKind::kList);

// Insertion-ordered. Keys are what Python can hash: strings, numbers, booleans, none, and tuples of
// such; 1, 1.0 and true are one key.
class Dict {
 public:
  // InvalidArgument for a key that is not hashable and beyond the limits of Extent. An existing key
  // keeps its place.
  absl::Status Set(const Value& key, Value value);
  const Value* Find(const Value& key) const;
  const Value* FindText(std::string_view key) const;

  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  const Extent& extent() const { return extent_; }

 private:
  // Small dicts are searched; the index exists from kIndexFrom entries on.
  static constexpr size_t kIndexFrom = 12;
  size_t FindIndex(const std::string& hash_key) const;

  std::vector<std::pair<Value, Value>> entries_;
  std::vector<std::string> hash_keys_;
  absl::flat_hash_map<std::string, size_t> index_;
  Extent extent_ = {.depth = 1};
};

// The only mutable container; `{% set ns.x = ... %}` writes to it.
struct Namespace {
  Dict fields;
};

struct MacroDefinition;
class Scope;

// Something that can be called.
struct Callable {
  enum class Kind { kFunction, kMacro, kMethod, kJoiner };
  Kind kind = Kind::kFunction;
  std::string name;
  Value receiver;  // of a method
  const MacroDefinition* macro = nullptr;
  Scope* scope = nullptr;  // where the macro was defined; kept by the rendering
  std::string separator;   // of a joiner
  bool used = false;       // of a joiner
};

// The `loop` variable.
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;  // of the current item
  int64_t depth = 1;
  bool has_last_changed = false;
  std::string last_changed;  // repr() of what changed() saw last
  // Of `for ... recursive`: the statement and its scope, to run again by loop(...).
  const void* statement = nullptr;
  Scope* scope = nullptr;
};

// Python's type name: "str", "dict", "NoneType", ...
std::string_view TypeName(const Value& value);

bool IsTrue(const Value& value);

// `==`. Cannot fail.
bool Equal(const Value& a, const Value& b);

// Three-way `<`; InvalidArgument for types without an order. `op` is for the message.
absl::StatusOr<int> Compare(const Value& a, const Value& b, std::string_view op);

// The error of using an undefined value.
absl::Status UndefinedError(const Value& undefined);
absl::Status TypeError(std::string message);

// The items to loop over: of a list, a dict's keys, a string's characters. InvalidArgument for
// anything that Python cannot iterate.
absl::StatusOr<std::shared_ptr<const List>> Iterate(const Value& value);

}  // namespace essor::model::jinja
