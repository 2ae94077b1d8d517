// Which build this is.
#pragma once

#include <string>

namespace essor {

// "0.1.0".
const std::string& Version();
// Version and source revision, "0.1.0+cbb4621"; processes of one cluster must have equal ones.
const std::string& BuildId();

}  // namespace essor
