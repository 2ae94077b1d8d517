// Random joins, losses, failures and delays against the production membership and simple workers
// that obey it. A failure names its seed.
#include <deque>
#include <map>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/core/membership.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), membership_(RandomOptions()) {}

  void Run(int num_rounds) {
    for (int round = 0; round < num_rounds; ++round) Disturb();
    // Left in peace and with enough workers, the instance must come up.
    while (workers_.size() < num_workers_) Join();
    for (int round = 0; round < 3000 && !ready_; ++round) Advance();
    EXPECT_TRUE(ready_) << membership_.Detail();
    EXPECT_EQ(membership_.state(), Membership::State::kReady);
  }

 private:
  struct Worker {
    std::deque<std::pair<char, uint64_t>> inbox;  // kind of message, epoch
    std::string weights;
  };

  uint32_t Draw(uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random_() % (high - low + 1));
  }

  Membership::Options RandomOptions() {
    num_workers_ = Draw(1, 5);
    Membership::Options options;
    options.num_workers = num_workers_;
    options.num_ranks = num_workers_ + Draw(0, 4);
    options.build = "b";
    options.weights_prefix = "w";
    options.capacity = [](uint32_t, uint64_t) -> absl::StatusOr<model::KvCapacity> {
      return model::KvCapacity{.num_blocks = 10};
    };
    return options;
  }

  void Join() {
    WorkerDescription description;
    description.build = "b";
    description.incarnation = absl::StrCat("i", next_incarnation_++);
    description.num_devices = 16;
    const auto id = membership_.Join(std::move(description), now_, &actions_);
    if (!id.ok()) return;
    workers_[id->value()];
    Perform();
  }

  void Disturb() {
    switch (Draw(0, 9)) {
      case 0:
        if (workers_.size() < num_workers_ + 2) Join();
        break;
      case 1:
        if (!workers_.empty() && Draw(0, 3) == 0) Kill(RandomWorker());
        break;
      case 2:
        if (!workers_.empty() && Draw(0, 5) == 0) {
          const WorkerId worker = RandomWorker();
          EXPECT_TRUE(membership_
                          .RankFailed(worker, assigned_[worker.value()], 0,
                                      absl::UnavailableError("x"), false, now_, &actions_)
                          .ok() ||
                      membership_.state() == Membership::State::kWaiting ||
                      !membership_.members().at(worker).place.has_value());
          Perform();
        }
        break;
      default:
        Advance();
    }
  }

  WorkerId RandomWorker() {
    auto chosen = workers_.begin();
    std::advance(chosen, Draw(0, static_cast<uint32_t>(workers_.size()) - 1));
    return WorkerId(chosen->first);
  }

  void Kill(WorkerId worker) {
    workers_.erase(worker.value());
    membership_.Lost(worker, "killed", now_, &actions_);
    Perform();
  }

  // One message of one worker is answered, or time passes.
  void Advance() {
    now_ += absl::Milliseconds(Draw(1, 20));
    for (const auto& [id, worker] : workers_) membership_.Heard(WorkerId(id), now_);
    membership_.Tick(now_, &actions_);
    Perform();
    if (workers_.empty()) return;
    const WorkerId id = RandomWorker();
    Worker& worker = workers_.at(id.value());
    if (worker.inbox.empty()) return;
    const auto [kind, epoch] = worker.inbox.front();
    worker.inbox.pop_front();
    absl::Status status;
    if (kind == 'a') status = membership_.Loaded(id, Epoch(epoch), 1, 1, now_, &actions_);
    if (kind == 'c') status = membership_.Ready(id, Epoch(epoch), now_, &actions_);
    if (kind == 'r') status = membership_.Released(id, Epoch(epoch), now_, &actions_);
    EXPECT_TRUE(status.ok()) << status;
    Perform();
  }

  void Perform() {
    while (!actions_.empty()) {
      const std::vector<MembershipAction> actions = std::exchange(actions_, {});
      for (const MembershipAction& action : actions) {
        std::visit([this](const auto& chosen) { On(chosen); }, action);
      }
    }
  }

  void Send(WorkerId worker, char kind, Epoch epoch) {
    const auto found = workers_.find(worker.value());
    if (found == workers_.end()) return;
    // A released worker drops what it had not begun, as real ones do.
    if (kind == 'r') found->second.inbox.clear();
    found->second.inbox.emplace_back(kind, epoch.value());
  }
  void On(const SendAssign& action) {
    EXPECT_EQ(action.epoch, membership_.epoch());
    EXPECT_GT(action.epoch, last_epoch_of_[action.worker.value()]);
    last_epoch_of_[action.worker.value()] = action.epoch;
    assigned_[action.worker.value()] = action.epoch;
    const std::string& key = action.assignment.weights_key;
    auto& weights = workers_.at(action.worker.value()).weights;
    // A worker that stays never has to load anything else.
    EXPECT_TRUE(weights.empty() || weights == key) << weights << " " << key;
    weights = key;
    Send(action.worker, 'a', action.epoch);
  }
  void On(const SendConnect& action) { Send(action.worker, 'c', action.epoch); }
  void On(const SendRelease& action) { Send(action.worker, 'r', action.epoch); }
  void On(const SendShutdown&) { ADD_FAILURE() << "nobody wanted to leave"; }
  // Nobody is silent or stuck here.
  void On(const CloseWorker& action) { ADD_FAILURE() << action.status; }
  void On(const EpochReady& action) {
    EXPECT_FALSE(ready_);
    EXPECT_GT(action.epoch, ready_epoch_);
    ready_epoch_ = action.epoch;
    ready_ = true;
  }
  void On(const EpochLost& action) {
    EXPECT_TRUE(ready_);
    EXPECT_EQ(action.epoch, ready_epoch_);
    ready_ = false;
  }
  void On(const InstanceFailed&) { ADD_FAILURE() << "no failure was fatal"; }

  std::mt19937_64 random_;
  uint32_t num_workers_ = 1;
  Membership membership_;
  absl::Time now_ = absl::UnixEpoch();
  uint64_t next_incarnation_ = 1;
  bool ready_ = false;
  Epoch ready_epoch_;
  std::map<uint64_t, Worker> workers_;
  std::map<uint64_t, Epoch> assigned_;
  std::map<uint64_t, Epoch> last_epoch_of_;
  std::vector<MembershipAction> actions_;
};

TEST(MembershipSimulationTest, RandomHistoriesAlwaysLeadBackToServing) {
  for (uint64_t seed = 0; seed < 500 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Simulation(seed).Run(400);
  }
}

}  // namespace
}  // namespace essor::coordinator
