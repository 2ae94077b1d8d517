// "a.b.0": how filters name an attribute of the items they work on.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/runtime.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

class AttributePath {
 public:
  // From a string or an integer; none or null is the empty path, which gives the item itself.
  static absl::StatusOr<AttributePath> From(const Value* attribute);

  // What `item` has there. A missing part is `absent`, or undefined without one; unlike Jinja,
  // going on from an undefined part is not an error (Jinja's filters are lazy and would often not
  // get there, these are not).
  absl::StatusOr<Value> Get(Runtime& runtime, const Value& item,
                            const Value* absent = nullptr) const;

 private:
  std::vector<Value> parts_;
};

// What items are sorted, grouped and compared by: the attribute, with strings in lower case unless
// `case_sensitive`.
absl::StatusOr<std::vector<Value>> SortKeys(Runtime& runtime, const std::vector<Value>& items,
                                            const AttributePath& path, bool case_sensitive);

}  // namespace essor::model::jinja
