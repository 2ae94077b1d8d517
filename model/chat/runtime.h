// What the parts of the interpreter share while one template is rendered: limits and the time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

// Budgets of one rendering. Thread-compatible.
class Runtime {
 public:
  struct Options {
    absl::Time now;
    int64_t steps_max = 0;  // nodes evaluated and items walked
    int64_t bytes_max = 0;  // text produced or searched, over all operations
  };

  explicit Runtime(const Options& options) : options_(options) {}

  absl::Time now() const { return options_.now; }

  // InvalidArgument when the budget is used up.
  absl::Status ChargeSteps(uint64_t steps);
  absl::Status ChargeBytes(uint64_t bytes);
  // For operations that walk all of `value`.
  absl::Status ChargeValue(const Value& value) { return ChargeBytes(ExtentOf(value).weight); }

 private:
  Options options_;
  uint64_t steps_ = 0;
  uint64_t bytes_ = 0;
};

// Evaluated arguments of a call.
struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

// Arguments by parameter; absent ones are null.
class BoundArguments {
 public:
  // InvalidArgument naming `function` for too many, unknown, doubled or missing arguments. The
  // result refers to `arguments`.
  static absl::StatusOr<BoundArguments> Bind(std::string_view function,
                                             const CallArguments& arguments,
                                             std::initializer_list<std::string_view> names,
                                             size_t required);

  const Value* operator[](size_t index) const { return values_[index]; }
  // Typed reading; InvalidArgument for another type. An absent or none argument gives `absent`.
  absl::StatusOr<int64_t> Int(size_t index, int64_t absent) const;
  absl::StatusOr<std::string> Text(size_t index, std::string_view absent) const;
  bool Truth(size_t index, bool absent) const {
    return values_[index] == nullptr ? absent : IsTrue(*values_[index]);
  }

 private:
  std::string function_;
  std::vector<const Value*> values_;
};

}  // namespace essor::model::jinja
