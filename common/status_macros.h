// Early return on absl::Status. Debian 12's Abseil (20220623) has no status macros; these two are
// the only ones in the tree.
//
//   ESSOR_RETURN_IF_ERROR(file.Read(offset, &buffer));
//   ESSOR_ASSIGN_OR_RETURN(const Plan plan, MakePlan(spec));
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ESSOR_RETURN_IF_ERROR(expression)          \
  do {                                             \
    absl::Status essor_status_ = (expression);     \
    if (!essor_status_.ok()) return essor_status_; \
  } while (false)

#define ESSOR_MACRO_CONCAT_INNER(a, b) a##b
#define ESSOR_MACRO_CONCAT(a, b) ESSOR_MACRO_CONCAT_INNER(a, b)

#define ESSOR_ASSIGN_OR_RETURN(declaration, expression)                                    \
  ESSOR_ASSIGN_OR_RETURN_INNER(ESSOR_MACRO_CONCAT(essor_statusor_, __LINE__), declaration, \
                               expression)

#define ESSOR_ASSIGN_OR_RETURN_INNER(temporary, declaration, expression) \
  auto temporary = (expression);                                         \
  if (!temporary.ok()) return std::move(temporary).status();             \
  declaration = *std::move(temporary)
