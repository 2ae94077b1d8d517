// Communicator of a group whose members all share a host: everything goes through their segments
// (see segment.h for the memory's layout and ordering).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "worker/parallel/group_member.h"
#include "worker/parallel/segment.h"
#include "worker/parallel/socket.h"
#include "worker/parallel/wire.h"

namespace essor::worker {

// Another member, as seen by this one.
struct ShmPeer {
  std::shared_ptr<const Segment> segment;  // shared with the member itself when of one process
  UniqueFd liveness;  // ends with the peer's process; invalid when that is this process
};

// `peers` by member number; this member's own entry is empty. `own` is also held by the members of
// this process.
std::unique_ptr<Communicator> MakeShmMember(GroupPlace place, std::shared_ptr<Segment> own,
                                            std::vector<ShmPeer> peers);

}  // namespace essor::worker
