// Chat messages of the proto as the JSON that chat templates take.
#pragma once

#include <string>

#include "essor/v1/types.pb.h"

namespace essor::coordinator {

// [{"role": ..., "content": ...}, ...]
std::string MessagesJson(const v1::ChatMessages& chat);

}  // namespace essor::coordinator
