// Shares of tenants as --tenant-weight gives them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace essor {

// Each "NAME=WEIGHT" with a weight from 0.001 to 1000; an empty name is that of requests which name
// no tenant. InvalidArgument for anything else, for names that no request can have (more than 128
// bytes or not printable ASCII without spaces), and for a name given twice.
absl::StatusOr<std::map<std::string, double>> ParseTenantWeights(
    const std::vector<std::string>& texts);

}  // namespace essor
