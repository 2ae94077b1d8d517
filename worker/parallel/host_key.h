// Which processes can share memory with this one.
#pragma once

#include <string>

namespace essor::worker {

// Equal in two processes exactly where one can hand the other a file descriptor over an abstract
// Unix socket: same boot of the kernel, same network namespace (it scopes abstract names), same
// user namespace and user id (the socket's peer is checked by it). Empty where that cannot be told.
std::string HostKey();

}  // namespace essor::worker
