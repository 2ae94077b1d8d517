#include "coordinator/core/membership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/error_details.h"
#include "common/status_macros.h"

namespace essor::coordinator {
namespace {

// Far above any number of formations; a worker that claims more is broken.
constexpr uint64_t kEpochMax = uint64_t{1} << 48;

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLongestBackoff = absl::Seconds(10);

absl::Status Mismatch(const std::string& field, const std::string& description) {
  return WithField(absl::FailedPreconditionError(absl::StrCat(field, ": ", description)), field);
}

const char* NameOf(Membership::State state) {
  switch (state) {
    case Membership::State::kWaiting:
      return "waiting";
    case Membership::State::kLoading:
      return "loading";
    case Membership::State::kConnecting:
      return "connecting";
    case Membership::State::kReady:
      return "ready";
    case Membership::State::kReleasing:
      return "releasing";
  }
  return "unknown";
}

}  // namespace

Membership::Membership(Options options) : options_(std::move(options)) {
  ESSOR_CHECK(options_.num_workers >= 1 && options_.num_ranks >= options_.num_workers);
  places_.resize(options_.num_workers);
}

std::pair<uint32_t, uint32_t> Membership::RanksOf(uint32_t place) const {
  const uint64_t ranks = options_.num_ranks;
  return {static_cast<uint32_t>(place * ranks / options_.num_workers),
          static_cast<uint32_t>((place + 1) * ranks / options_.num_workers)};
}

uint32_t Membership::PlaceOfRank(uint32_t rank) const {
  uint32_t place = 0;
  while (RanksOf(place).second <= rank) ++place;
  return place;
}

std::optional<WorkerId> Membership::WorkerOfRank(uint32_t rank) const {
  return places_[PlaceOfRank(rank)];
}

std::string Membership::WeightsKey(uint32_t place) const {
  const auto [first, end] = RanksOf(place);
  return absl::StrCat(options_.weights_prefix, "/ranks=", first, "-", end - 1);
}

absl::StatusOr<WorkerId> Membership::Join(WorkerDescription description, absl::Time now,
                                          std::vector<MembershipAction>* actions) {
  for (const auto& [id, member] : members_) {
    if (member.description.incarnation != description.incarnation) continue;
    const WorkerId old = id;
    Lost(old, "the same process joined again", now, actions);
    actions->push_back(CloseWorker{old, absl::AbortedError("replaced by a newer stream")});
    break;
  }
  const std::optional<uint32_t> place = ChoosePlace(description.held_weights);
  ESSOR_RETURN_IF_ERROR(CheckDescription(description, place));
  if (!place.has_value() && members_.size() >= options_.num_workers + options_.max_spares) {
    return absl::ResourceExhaustedError(absl::StrCat("all ", options_.num_workers,
                                                     " places are taken and ", options_.max_spares,
                                                     " spare workers wait already"));
  }
  highest_epoch_seen_ = std::max(highest_epoch_seen_, description.last_epoch);
  const WorkerId id(next_worker_++);
  Member member{
      .description = std::move(description), .place = place, .heard = now, .phase_since = now};
  if (place.has_value()) {
    places_[*place] = id;
    const auto [first, end] = RanksOf(*place);
    member.load_fraction.assign(end - first, 0.0);
  }
  members_.emplace(id, std::move(member));
  MaybeForm(now, actions);
  return id;
}

std::optional<uint32_t> Membership::ChoosePlace(const std::string& held_weights) const {
  std::optional<uint32_t> free_place;
  for (uint32_t place = 0; place < places_.size(); ++place) {
    if (places_[place].has_value()) continue;
    if (!held_weights.empty() && WeightsKey(place) == held_weights) return place;
    if (!free_place.has_value()) free_place = place;
  }
  return free_place;
}

absl::Status Membership::CheckDescription(const WorkerDescription& description,
                                          std::optional<uint32_t> place) const {
  if (description.build != options_.build) {
    return Mismatch("build", absl::StrCat("the worker runs ", description.build,
                                          " and the coordinator ", options_.build));
  }
  if (description.incarnation.empty()) return Mismatch("incarnation", "is empty");
  if (description.last_epoch > kEpochMax) return Mismatch("last_epoch", "is not an epoch");
  const auto [first, end] = RanksOf(place.value_or(0));
  if (description.num_devices < end - first) {
    return Mismatch("num_devices",
                    absl::StrCat("the plan gives each worker ", end - first,
                                 " ranks and this one can hold ", description.num_devices));
  }
  const uint64_t memory = description.memory_bytes / (end - first);
  for (uint32_t rank = first; rank < end; ++rank) {
    const absl::Status fits = options_.capacity(rank, memory).status();
    if (fits.ok()) continue;
    return Mismatch("memory_bytes",
                    absl::StrCat("rank ", rank, " does not fit: ", std::string(fits.message())));
  }
  return absl::OkStatus();
}

void Membership::Lost(WorkerId worker, const std::string& reason, absl::Time now,
                      std::vector<MembershipAction>* actions) {
  const auto found = members_.find(worker);
  if (found == members_.end()) return;
  const std::optional<uint32_t> place = found->second.place;
  const std::string host = found->second.description.host;
  const int64_t pid = found->second.description.pid;
  members_.erase(found);
  if (!place.has_value()) return;
  // A spare takes the place over at once.
  places_[*place] = std::nullopt;
  for (auto& [id, member] : members_) {
    if (member.place.has_value() || member.leaving) continue;
    const auto [first, end] = RanksOf(*place);
    member.place = place;
    member.done = true;  // no part in the epoch that is being released
    member.load_fraction.assign(end - first, 0.0);
    places_[*place] = id;
    break;
  }
  const std::string lost =
      absl::StrCat("worker ", worker.value(), " (pid ", pid, " on ", host, ") was lost: ", reason);
  switch (state_) {
    case State::kWaiting:
      MaybeForm(now, actions);
      return;
    case State::kReleasing:
      FinishRelease(now, actions);
      return;
    case State::kLoading:
    case State::kConnecting:
    case State::kReady:
      ReleaseEpoch(lost, now, actions);
  }
}

void Membership::Heard(WorkerId worker, absl::Time now) {
  const auto found = members_.find(worker);
  if (found != members_.end()) found->second.heard = now;
}

absl::StatusOr<Membership::Member*> Membership::Current(WorkerId worker, Epoch epoch,
                                                        State expected, const char* message) {
  const auto found = members_.find(worker);
  if (found == members_.end() || epoch < epoch_) return nullptr;  // stale
  // After Release was sent, messages of the phase before may still be under way.
  const bool crossed = state_ == State::kReleasing && expected != State::kReleasing;
  if (epoch == epoch_ && crossed) return nullptr;
  if (epoch > epoch_ || state_ != expected || !found->second.place.has_value() ||
      found->second.done) {
    return absl::FailedPreconditionError(
        absl::StrCat(message, " of epoch ", epoch.value(), " is out of order: the instance is ",
                     NameOf(state_), " in epoch ", epoch_.value()));
  }
  return &found->second;
}

absl::Status Membership::LoadProgress(WorkerId worker, Epoch epoch,
                                      const std::vector<uint32_t>& ranks,
                                      const std::vector<double>& fractions, absl::Time now) {
  ESSOR_ASSIGN_OR_RETURN(Member* const member,
                         Current(worker, epoch, State::kLoading, "LoadProgress"));
  if (member == nullptr) return absl::OkStatus();
  const auto [first, end] = RanksOf(*member->place);
  for (size_t i = 0; i < std::min(ranks.size(), fractions.size()); ++i) {
    if (ranks[i] < first || ranks[i] >= end) {
      return absl::InvalidArgumentError(
          absl::StrCat("LoadProgress names rank ", ranks[i], ", which is not the worker's"));
    }
    member->load_fraction[ranks[i] - first] = std::clamp(fractions[i], 0.0, 1.0);
  }
  member->phase_since = now;
  return absl::OkStatus();
}

absl::Status Membership::Loaded(WorkerId worker, Epoch epoch, uint64_t weight_bytes,
                                uint64_t kv_bytes, absl::Time now,
                                std::vector<MembershipAction>* actions) {
  ESSOR_ASSIGN_OR_RETURN(Member* const member, Current(worker, epoch, State::kLoading, "Loaded"));
  if (member == nullptr) return absl::OkStatus();
  member->done = true;
  member->weight_bytes = weight_bytes;
  member->kv_bytes = kv_bytes;
  std::fill(member->load_fraction.begin(), member->load_fraction.end(), 1.0);
  member->description.held_weights = WeightsKey(*member->place);
  if (!AllDone()) return absl::OkStatus();
  EnterPhase(State::kConnecting, now);
  std::vector<std::pair<WorkerId, DataEndpoint>> endpoints;
  for (const auto& id : places_) endpoints.emplace_back(*id, members_.at(*id).description.data);
  for (const auto& id : places_) actions->push_back(SendConnect{*id, epoch_, endpoints});
  return absl::OkStatus();
}

absl::Status Membership::Ready(WorkerId worker, Epoch epoch, absl::Time now,
                               std::vector<MembershipAction>* actions) {
  ESSOR_ASSIGN_OR_RETURN(Member* const member, Current(worker, epoch, State::kConnecting, "Ready"));
  if (member == nullptr) return absl::OkStatus();
  member->done = true;
  if (!AllDone()) return absl::OkStatus();
  EnterPhase(State::kReady, now);
  failed_formations_ = 0;
  actions->push_back(EpochReady{epoch_, capacity_});
  return absl::OkStatus();
}

absl::Status Membership::Released(WorkerId worker, Epoch epoch, absl::Time now,
                                  std::vector<MembershipAction>* actions) {
  ESSOR_ASSIGN_OR_RETURN(Member* const member,
                         Current(worker, epoch, State::kReleasing, "Released"));
  if (member == nullptr) return absl::OkStatus();
  member->done = true;
  FinishRelease(now, actions);
  return absl::OkStatus();
}

absl::Status Membership::RankFailed(WorkerId worker, Epoch epoch, uint32_t rank,
                                    const absl::Status& failure, bool fatal, absl::Time now,
                                    std::vector<MembershipAction>* actions) {
  const auto found = members_.find(worker);
  if (found == members_.end() || epoch < epoch_) return absl::OkStatus();
  if (epoch > epoch_ || state_ == State::kWaiting || !found->second.place.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("RankFailure of epoch ", epoch.value(), " is out of order"));
  }
  if (state_ == State::kReleasing) return absl::OkStatus();
  const std::string reason =
      absl::StrCat("rank ", rank, " on ", found->second.description.host, " (pid ",
                   found->second.description.pid, ") failed: ", std::string(failure.message()));
  if (fatal && absl::IsFailedPrecondition(failure)) {
    Lost(worker, std::string(failure.message()), now, actions);
    actions->push_back(CloseWorker{worker, absl::FailedPreconditionError(reason)});
    return absl::OkStatus();
  }
  ReleaseEpoch(reason, now, actions);
  if (fatal) actions->push_back(InstanceFailed{absl::Status(failure.code(), reason)});
  return absl::OkStatus();
}

void Membership::Leaving(WorkerId worker, std::vector<MembershipAction>* actions) {
  const auto found = members_.find(worker);
  if (found == members_.end() || found->second.leaving) return;
  found->second.leaving = true;
  const bool serves = state_ == State::kReady && found->second.place.has_value();
  if (!serves) actions->push_back(SendShutdown{worker});
}

bool Membership::leaving() const {
  return std::any_of(members_.begin(), members_.end(), [](const auto& entry) {
    return entry.second.leaving && entry.second.place.has_value();
  });
}

void Membership::Drained(std::vector<MembershipAction>* actions) {
  for (const auto& [id, member] : members_) {
    if (member.leaving && member.place.has_value()) actions->push_back(SendShutdown{id});
  }
}

void Membership::AbandonEpoch(const std::string& reason, absl::Time now,
                              std::vector<MembershipAction>* actions) {
  if (state_ == State::kWaiting || state_ == State::kReleasing) return;
  ReleaseEpoch(reason, now, actions);
}

void Membership::MaybeForm(absl::Time now, std::vector<MembershipAction>* actions) {
  if (state_ != State::kWaiting || now < form_after_) return;
  std::optional<model::KvCapacity> capacity;
  for (uint32_t place = 0; place < places_.size(); ++place) {
    if (!places_[place].has_value()) return;
    const auto [first, end] = RanksOf(place);
    if (members_.at(*places_[place]).leaving) return;  // its stream ends soon
    const uint64_t memory = members_.at(*places_[place]).description.memory_bytes / (end - first);
    for (uint32_t rank = first; rank < end; ++rank) {
      const absl::StatusOr<model::KvCapacity> mine = options_.capacity(rank, memory);
      if (!mine.ok()) {  // a spare that fitted another place
        const WorkerId worker = *places_[place];
        Lost(worker, "too little memory", now, actions);
        actions->push_back(
            CloseWorker{worker, Mismatch("memory_bytes", std::string(mine.status().message()))});
        return;
      }
      capacity = capacity.has_value() ? Smaller(*capacity, *mine) : *mine;
    }
  }
  epoch_ = Epoch(std::max(epoch_.value(), highest_epoch_seen_) + 1);
  capacity_ = *capacity;
  EnterPhase(State::kLoading, now);
  for (uint32_t place = 0; place < places_.size(); ++place) {
    members_.at(*places_[place]).assigned = epoch_;
    actions->push_back(SendAssign{*places_[place], epoch_, AssignmentOf(place)});
  }
}

Assignment Membership::AssignmentOf(uint32_t place) const {
  Assignment assignment{.ranks = {}, .capacity = capacity_, .weights_key = WeightsKey(place)};
  const std::string& host = members_.at(*places_[place]).description.data.host_key;
  assignment.local_count = 0;
  for (uint32_t other = 0; other < places_.size(); ++other) {
    const auto [first, end] = RanksOf(other);
    for (uint32_t rank = first; rank < end; ++rank) {
      assignment.ranks.push_back({.rank = rank, .worker = *places_[other], .device = rank - first});
    }
    if (members_.at(*places_[other]).description.data.host_key != host) continue;
    if (other < place) ++assignment.local_index;
    ++assignment.local_count;
  }
  return assignment;
}

void Membership::EnterPhase(State state, absl::Time now) {
  state_ = state;
  for (auto& [id, member] : members_) {
    member.done = false;
    member.phase_since = now;
  }
}

bool Membership::AllDone() const {
  return std::all_of(places_.begin(), places_.end(), [this](const std::optional<WorkerId>& id) {
    return !id.has_value() || members_.at(*id).done;
  });
}

void Membership::ReleaseEpoch(const std::string& reason, absl::Time now,
                              std::vector<MembershipAction>* actions) {
  if (state_ == State::kReady) {
    actions->push_back(EpochLost{epoch_, absl::UnavailableError(reason)});
  } else {
    const absl::Duration backoff =
        kFirstBackoff * static_cast<double>(1u << std::min(failed_formations_, 10u));
    form_after_ = now + std::min(backoff, kLongestBackoff);
    ++failed_formations_;
  }
  EnterPhase(State::kReleasing, now);
  for (const auto& id : places_) {
    if (!id.has_value()) continue;
    Member& member = members_.at(*id);
    member.done = member.assigned != epoch_;  // a spare that has just taken the place
    if (!member.done) actions->push_back(SendRelease{*id, epoch_, reason});
  }
  FinishRelease(now, actions);
}

void Membership::FinishRelease(absl::Time now, std::vector<MembershipAction>* actions) {
  if (!AllDone()) return;
  EnterPhase(State::kWaiting, now);
  MaybeForm(now, actions);
}

void Membership::Tick(absl::Time now, std::vector<MembershipAction>* actions) {
  std::vector<std::pair<WorkerId, std::string>> dead;
  for (const auto& [id, member] : members_) {
    const absl::Duration silence = now - member.heard;
    const absl::Duration phase = now - member.phase_since;
    const bool pending = member.place.has_value() && !member.done;
    if (silence > options_.heartbeat_timeout) {
      dead.emplace_back(id, absl::StrCat("not heard for ", absl::FormatDuration(silence)));
    } else if (pending && state_ == State::kLoading && phase > options_.load_timeout) {
      dead.emplace_back(id, "no progress in loading");
    } else if (pending && state_ == State::kConnecting && phase > options_.connect_timeout) {
      dead.emplace_back(id, "could not connect to its peers in time");
    } else if (pending && state_ == State::kReleasing && phase > options_.release_timeout) {
      dead.emplace_back(id, "did not release its epoch in time");
    }
  }
  for (const auto& [id, reason] : dead) {
    Lost(id, reason, now, actions);
    actions->push_back(CloseWorker{id, absl::UnavailableError(reason)});
  }
  MaybeForm(now, actions);
}

std::string Membership::Detail() const {
  const auto missing =
      static_cast<uint32_t>(std::count(places_.begin(), places_.end(), std::optional<WorkerId>()));
  switch (state_) {
    case State::kWaiting:
      if (missing == 0) return "about to form again";
      return absl::StrCat("waiting for ", missing, " of ", options_.num_workers, " workers");
    case State::kLoading: {
      double done = 0;
      for (const auto& id : places_) {
        for (const double fraction : members_.at(*id).load_fraction) done += fraction;
      }
      return absl::StrCat("loading weights: ", static_cast<int>(100 * done / options_.num_ranks),
                          " %");
    }
    case State::kConnecting:
      return "connecting the ranks";
    case State::kReady:
      return "serving";
    case State::kReleasing:
      return "releasing the last epoch";
  }
  return "";
}

}  // namespace essor::coordinator
