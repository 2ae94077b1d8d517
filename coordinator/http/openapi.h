// The OpenAPI 3.1 document of the HTTP front end.
#pragma once

#include <string>

namespace essor::coordinator {

// JSON. The same string each time.
const std::string& OpenApiDocument();

}  // namespace essor::coordinator
