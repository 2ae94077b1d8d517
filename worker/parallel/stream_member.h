// Communicator of a group that spans hosts: one byte stream per pair of members, TCP between hosts
// and a Unix socket between members of one host. Every exchange is a set of frames (wire.h) sent
// and received at the same time, so that no order of arrival and no full socket buffer can block
// it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/parallel/group_member.h"
#include "worker/parallel/socket.h"

namespace essor::worker {

// `streams` by member number, connected and non-blocking; this member's own entry is invalid.
// `transport` is what transport() answers: "tcp" or "mixed". Allocates all buffers.
std::unique_ptr<Communicator> MakeStreamMember(GroupPlace place, std::vector<UniqueFd> streams,
                                               std::string transport);

}  // namespace essor::worker
