// A cluster's state as a table for people and as JSON. Pure.
#pragma once

#include <string>

#include "essor/v1/admin.pb.h"

namespace essor::cli {

std::string ClusterTable(const v1::GetClusterResponse& cluster);
// One object with the message's field names; the state in lower case ("ready").
std::string ClusterJson(const v1::GetClusterResponse& cluster);

}  // namespace essor::cli
