// DataPlane over shared memory, Unix sockets and TCP. How groups come to be: peer_link.h; which
// transport a group gets: RouteOf() below.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/epoch_fence.h"
#include "worker/parallel/handshake_server.h"
#include "worker/parallel/host_key.h"
#include "worker/parallel/local_segments.h"
#include "worker/parallel/peer_link.h"
#include "worker/parallel/shm_member.h"
#include "worker/parallel/stream_member.h"

namespace essor::worker {
namespace {

// Groups are ranks of one instance; tables per member stay small.
constexpr size_t kGroupSizeMax = 1024;
constexpr size_t kGroupsMax = 64;
// Between two looks for connections that the handshake server took.
constexpr int kConnectSliceMs = 2;

bool SharesHost(const DataEndpoint& a, const DataEndpoint& b) {
  return !a.host_key.empty() && a.host_key == b.host_key && !a.shm_name.empty() &&
         !b.shm_name.empty();
}

// A process has one TCP listener, so its address tells processes apart.
bool SharesProcess(const DataEndpoint& a, const DataEndpoint& b) {
  return a.tcp_address == b.tcp_address && a.shm_name == b.shm_name;
}

std::string IpOf(const DataEndpoint& endpoint) {
  return endpoint.tcp_address.substr(0, endpoint.tcp_address.rfind(':'));
}

// One group while it is being formed.
struct Forming {
  GroupPlace place;
  uint64_t key = 0;
  std::string transport;                         // "shm", "tcp", "mixed"
  Segment::Created own;                          // "shm" only
  std::vector<std::unique_ptr<PeerLink>> links;  // by member; own entry null
};

class SocketDataPlane : public DataPlane {
 public:
  SocketDataPlane(const Options& options, DataEndpoint endpoint,
                  std::unique_ptr<HandshakeServer> server)
      : options_(options),
        endpoint_(std::move(endpoint)),
        cores_of_process_(std::max(1u, std::thread::hardware_concurrency())),
        fence_(std::make_shared<EpochFence>()),
        server_(std::move(server)) {}

  DataEndpoint endpoint() const override { return endpoint_; }
  absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(
      const EpochMembers& members, uint32_t rank, const std::vector<GroupSpec>& groups,
      uint64_t max_payload_bytes, absl::Time deadline) override;
  void Abort(uint64_t epoch, const std::string& reason) override;

 private:
  absl::Status CheckRequest(const EpochMembers& members, uint32_t rank,
                            const std::vector<GroupSpec>& groups, uint64_t max_payload_bytes) const;
  // Older epochs are over; Unavailable when `epoch` itself is.
  absl::Status Enter(uint64_t epoch);
  SteadyNanos SpinFor(const EpochMembers& members) const;
  absl::StatusOr<Forming> Start(const EpochMembers& members, GroupPlace place);
  absl::Status FormLinks(const std::vector<Forming>& groups, uint32_t rank, absl::Time deadline);
  static std::unique_ptr<Communicator> Finish(Forming group);

  const Options options_;
  const DataEndpoint endpoint_;
  const uint32_t cores_of_process_;
  const std::shared_ptr<EpochFence> fence_;  // also held by the communicators
  LocalSegments local_segments_;
  const std::unique_ptr<HandshakeServer> server_;
  absl::Mutex mutex_;
  uint64_t newest_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status CheckGroup(const GroupSpec& group, uint32_t rank, size_t num_ranks) {
  if (group.ranks.size() > kGroupSizeMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("group %s has %d ranks, at most %d are possible", group.name,
                        group.ranks.size(), kGroupSizeMax));
  }
  absl::flat_hash_set<uint32_t> seen;
  for (const uint32_t member : group.ranks) {
    if (member >= num_ranks || !seen.insert(member).second) {
      return absl::InvalidArgumentError(
          absl::StrFormat("group %s names rank %d twice or beyond the epoch's %d ranks", group.name,
                          member, num_ranks));
    }
  }
  if (seen.contains(rank)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("group %s does not contain rank %d, which joins it", group.name, rank));
}

absl::Status SocketDataPlane::CheckRequest(const EpochMembers& members, uint32_t rank,
                                           const std::vector<GroupSpec>& groups,
                                           uint64_t max_payload_bytes) const {
  if (members.epoch == 0 || rank >= members.ranks.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("epoch %d, rank %d of %d", members.epoch, rank, members.ranks.size()));
  }
  if (!SharesProcess(members.ranks[rank].endpoint, endpoint_)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rank %d is placed at %s, but this data plane is %s", rank,
                        members.ranks[rank].endpoint.tcp_address, endpoint_.tcp_address));
  }
  if (max_payload_bytes > options_.max_message_bytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("payloads of %d bytes wanted, the data plane's limit is %d",
                        max_payload_bytes, options_.max_message_bytes));
  }
  if (groups.size() > kGroupsMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d groups, at most %d are possible", groups.size(), kGroupsMax));
  }
  absl::flat_hash_set<uint64_t> keys;
  for (const GroupSpec& group : groups) {
    ESSOR_RETURN_IF_ERROR(CheckGroup(group, rank, members.ranks.size()));
    if (!keys.insert(GroupKey(group.name, group.ranks)).second) {
      return absl::InvalidArgumentError(
          absl::StrFormat("two groups are named %s and have the same ranks", group.name));
    }
  }
  return absl::OkStatus();
}

absl::Status SocketDataPlane::Enter(uint64_t epoch) {
  {
    absl::MutexLock lock(&mutex_);
    if (epoch < newest_epoch_) {
      return absl::UnavailableError(
          absl::StrFormat("epoch %d is over: epoch %d was formed since", epoch, newest_epoch_));
    }
    newest_epoch_ = epoch;
  }
  ESSOR_RETURN_IF_ERROR(fence_->Check(epoch));
  server_->Fence(epoch);
  return absl::OkStatus();
}

SteadyNanos SocketDataPlane::SpinFor(const EpochMembers& members) const {
  CoreShare share{.ranks_on_host = 0,
                  .cores_of_host = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_ONLN)),
                  .ranks_in_process = 0,
                  .cores_of_process = cores_of_process_};
  for (const EpochMembers::Member& member : members.ranks) {
    const bool same_host =
        SharesHost(member.endpoint, endpoint_) || IpOf(member.endpoint) == IpOf(endpoint_);
    share.ranks_on_host += same_host ? 1 : 0;
    share.ranks_in_process += SharesProcess(member.endpoint, endpoint_) ? 1 : 0;
  }
  return SpinBudget(share);
}

// "shm" when all members share a host, "tcp" when no two of them do, else "mixed".
std::string TransportOf(const EpochMembers& members, const std::vector<uint32_t>& ranks) {
  const auto endpoint = [&](size_t i) -> const DataEndpoint& {
    return members.ranks[ranks[i]].endpoint;
  };
  size_t sharing = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    for (size_t j = 0; j < i; ++j) sharing += SharesHost(endpoint(i), endpoint(j)) ? 1 : 0;
  }
  if (sharing == ranks.size() * (ranks.size() - 1) / 2) return "shm";
  return sharing == 0 ? "tcp" : "mixed";
}

absl::StatusOr<Forming> SocketDataPlane::Start(const EpochMembers& members, GroupPlace place) {
  Forming group;
  group.place = std::move(place);
  const GroupPlace& at = group.place;
  group.key = GroupKey(at.name, at.ranks);
  group.transport = TransportOf(members, at.ranks);
  if (at.ranks.size() == 1) return group;

  SegmentIdentity identity{.epoch = at.epoch,
                           .group_key = group.key,
                           .member = at.index,
                           .group_size = static_cast<uint32_t>(at.ranks.size()),
                           .max_payload_bytes = at.max_payload_bytes};
  if (group.transport == "shm") {
    ESSOR_ASSIGN_OR_RETURN(group.own, Segment::Create(identity));
    local_segments_.Add(group.own.segment);
  }
  for (uint32_t member = 0; member < at.ranks.size(); ++member) {
    if (member == at.index) {
      group.links.push_back(nullptr);
      continue;
    }
    const DataEndpoint& peer = members.ranks[at.ranks[member]].endpoint;
    const Route route = group.transport == "shm"      ? Route::kMemory
                        : SharesHost(peer, endpoint_) ? Route::kUnix
                                                      : Route::kTcp;
    identity.member = member;
    group.links.push_back(
        std::make_unique<PeerLink>(PeerLink::Options{.route = route,
                                                     .same_process = SharesProcess(peer, endpoint_),
                                                     .dials = member < at.index,
                                                     .peer = peer,
                                                     .own_rank = at.ranks[at.index],
                                                     .peer_rank = at.ranks[member],
                                                     .peer_segment = identity,
                                                     .own_segment_fd = group.own.fd.get(),
                                                     .server = server_.get(),
                                                     .local_segments = &local_segments_}));
  }
  return group;
}

// "2, 5 (cannot reach it: Connection refused)": the ranks of links that are not up.
std::string MissingRanks(const std::vector<PeerLink*>& links) {
  std::vector<std::pair<uint32_t, std::string>> missing;
  for (const PeerLink* link : links) {
    std::string entry = absl::StrCat(link->peer_rank());
    if (!link->last_failure().empty()) absl::StrAppend(&entry, " (", link->last_failure(), ")");
    missing.emplace_back(link->peer_rank(), std::move(entry));
  }
  std::sort(missing.begin(), missing.end());
  const auto same_rank = [](const auto& a, const auto& b) { return a.first == b.first; };
  missing.erase(std::unique(missing.begin(), missing.end(), same_rank), missing.end());
  return absl::StrJoin(missing, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.second);
  });
}

absl::Status SocketDataPlane::FormLinks(const std::vector<Forming>& groups, uint32_t rank,
                                        absl::Time deadline) {
  const SteadyNanos deadline_nanos = absl::ToUnixNanos(deadline);
  std::vector<PeerLink*> waiting;
  for (const Forming& group : groups) {
    for (const auto& link : group.links) {
      if (link != nullptr) waiting.push_back(link.get());
    }
  }
  const uint64_t epoch = groups.empty() ? 0 : groups.front().place.epoch;
  std::vector<pollfd> polled;
  while (!waiting.empty()) {
    const SteadyNanos now = SteadyNow();
    std::vector<PeerLink*> still_waiting;
    for (PeerLink* link : waiting) {
      ESSOR_ASSIGN_OR_RETURN(const bool up, link->Advance(now));
      if (!up) still_waiting.push_back(link);
    }
    waiting = std::move(still_waiting);
    if (waiting.empty()) break;
    ESSOR_RETURN_IF_ERROR(fence_->Check(epoch));
    if (now >= deadline_nanos) {
      return absl::DeadlineExceededError(
          absl::StrFormat("epoch %d, rank %d: no connection in time with rank %s", epoch, rank,
                          MissingRanks(waiting)));
    }
    polled.clear();
    for (const PeerLink* link : waiting) {
      if (const auto awaited = link->Awaited(); awaited.has_value()) polled.push_back(*awaited);
    }
    (void)poll(polled.data(), polled.size(), kConnectSliceMs);
  }
  return absl::OkStatus();
}

std::unique_ptr<Communicator> SocketDataPlane::Finish(Forming group) {
  if (group.links.empty()) return MakeSoloMember(std::move(group.place));
  if (group.transport == "shm") {
    std::vector<ShmPeer> peers;
    peers.reserve(group.links.size());
    for (const auto& link : group.links) {
      peers.push_back(link == nullptr ? ShmPeer{} : ShmPeer{link->segment(), link->TakeStream()});
    }
    return MakeShmMember(std::move(group.place), std::move(group.own.segment), std::move(peers));
  }
  std::vector<UniqueFd> streams;
  streams.reserve(group.links.size());
  for (const auto& link : group.links) {
    streams.push_back(link == nullptr ? UniqueFd() : link->TakeStream());
  }
  return MakeStreamMember(std::move(group.place), std::move(streams), group.transport);
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> SocketDataPlane::Connect(
    const EpochMembers& members, uint32_t rank, const std::vector<GroupSpec>& groups,
    uint64_t max_payload_bytes, absl::Time deadline) {
  ESSOR_RETURN_IF_ERROR(CheckRequest(members, rank, groups, max_payload_bytes));
  ESSOR_RETURN_IF_ERROR(Enter(members.epoch));
  const SteadyNanos spin = SpinFor(members);
  std::vector<Forming> forming;
  for (const GroupSpec& group : groups) {
    const auto own = std::find(group.ranks.begin(), group.ranks.end(), rank);
    ESSOR_ASSIGN_OR_RETURN(
        Forming started,
        Start(members, GroupPlace{.name = group.name,
                                  .epoch = members.epoch,
                                  .ranks = group.ranks,
                                  .index = static_cast<uint32_t>(own - group.ranks.begin()),
                                  .max_payload_bytes = max_payload_bytes,
                                  .spin = spin,
                                  .deadline = deadline,
                                  .fence = fence_}));
    forming.push_back(std::move(started));
  }
  ESSOR_RETURN_IF_ERROR(FormLinks(forming, rank, deadline));
  std::vector<std::unique_ptr<Communicator>> communicators;
  communicators.reserve(forming.size());
  for (Forming& group : forming) communicators.push_back(Finish(std::move(group)));
  return communicators;
}

void SocketDataPlane::Abort(uint64_t epoch, const std::string& reason) {
  fence_->Abort(epoch, reason);
  server_->Fence(epoch + 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Create(const Options& options) {
  DataEndpoint endpoint;
  ESSOR_ASSIGN_OR_RETURN(Listener tcp, ListenTcp(options.listen_ip));
  endpoint.tcp_address = tcp.address;
  Listener abstract;
  if (options.allow_shared_memory) {
    ESSOR_ASSIGN_OR_RETURN(abstract, ListenAbstract());
    endpoint.shm_name = abstract.address;
    endpoint.host_key = HostKey();
  }
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<HandshakeServer> server,
                         HandshakeServer::Create({.tcp_listener = std::move(tcp.fd),
                                                  .abstract_listener = std::move(abstract.fd),
                                                  .own_key = EndpointKey(endpoint)}));
  return std::unique_ptr<DataPlane>(
      std::make_unique<SocketDataPlane>(options, std::move(endpoint), std::move(server)));
}

}  // namespace essor::worker
