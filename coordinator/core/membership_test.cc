#include "coordinator/core/membership.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/error_details.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

using testing::HasSubstr;

// Shows actions as one line each, so that a test reads as a trace.
struct Shower {
  std::string operator()(const SendAssign& a) const {
    return absl::StrCat("assign ", a.worker.value(), " epoch ", a.epoch.value(), " ",
                        a.assignment.weights_key, " blocks ", a.assignment.capacity.num_blocks);
  }
  std::string operator()(const SendConnect& a) const {
    return absl::StrCat("connect ", a.worker.value(), " epoch ", a.epoch.value(), " members ",
                        a.members.size());
  }
  std::string operator()(const SendRelease& a) const {
    return absl::StrCat("release ", a.worker.value(), " epoch ", a.epoch.value());
  }
  std::string operator()(const SendShutdown& a) const {
    return absl::StrCat("shutdown ", a.worker.value());
  }
  std::string operator()(const CloseWorker& a) const {
    return absl::StrCat("close ", a.worker.value(), " ", absl::StatusCodeToString(a.status.code()));
  }
  std::string operator()(const EpochReady& a) const {
    return absl::StrCat("ready ", a.epoch.value());
  }
  std::string operator()(const EpochLost& a) const {
    return absl::StrCat("lost ", a.epoch.value(), ": ", std::string(a.reason.message()));
  }
  std::string operator()(const InstanceFailed& a) const {
    return absl::StrCat("failed: ", std::string(a.reason.message()));
  }
};

class MembershipTest : public testing::Test {
 protected:
  static Membership::Options DefaultOptions() {
    Membership::Options options;
    options.num_workers = 2;
    options.num_ranks = 3;
    options.build = "b1";
    options.weights_prefix = "w";
    options.capacity = [](uint32_t rank, uint64_t memory) -> absl::StatusOr<model::KvCapacity> {
      if (memory < 10)
        return absl::ResourceExhaustedError(absl::StrCat(10 - memory, " bytes miss"));
      return model::KvCapacity{.num_blocks = static_cast<uint32_t>(memory) - rank};
    };
    return options;
  }

  static WorkerDescription Worker(const std::string& incarnation) {
    WorkerDescription description;
    description.build = "b1";
    description.incarnation = incarnation;
    description.host = "node";
    description.pid = 7;
    description.num_devices = 2;
    description.memory_bytes = 100;
    description.data.host_key = "h";
    return description;
  }

  WorkerId Join(const std::string& incarnation) { return JoinAs(Worker(incarnation)); }
  WorkerId JoinAs(WorkerDescription description) {
    const auto id = membership_.Join(std::move(description), now_, &actions_);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(WorkerId());
  }

  // Takes both workers 1 and 2 to kReady in epoch 1.
  void FormReady() {
    Join("a");
    Join("b");
    for (const uint64_t id : {1, 2}) {
      ASSERT_TRUE(membership_.Loaded(WorkerId(id), Epoch(1), 5, 6, now_, &actions_).ok());
    }
    for (const uint64_t id : {1, 2}) {
      ASSERT_TRUE(membership_.Ready(WorkerId(id), Epoch(1), now_, &actions_).ok());
    }
    ASSERT_EQ(membership_.state(), Membership::State::kReady);
    actions_.clear();
  }

  std::string Trace() {
    const std::string text =
        absl::StrJoin(actions_, "; ", [](std::string* out, const MembershipAction& action) {
          absl::StrAppend(out, std::visit(Shower(), action));
        });
    actions_.clear();
    return text;
  }

  Membership membership_{DefaultOptions()};
  std::vector<MembershipAction> actions_;
  absl::Time now_ = absl::UnixEpoch();
};

// Workers that outlived a coordinator fence the old one's messages: numbers go on from theirs.
TEST_F(MembershipTest, EpochsGoOnFromWhatWorkersHaveSeen) {
  WorkerDescription first = Worker("a");
  first.last_epoch = 7;
  JoinAs(first);
  WorkerDescription broken = Worker("x");
  broken.last_epoch = ~uint64_t{0};
  std::vector<MembershipAction> actions;
  EXPECT_EQ(membership_.Join(broken, now_, &actions).status().code(),
            absl::StatusCode::kFailedPrecondition);
  Join("b");
  EXPECT_EQ(membership_.epoch(), Epoch(8));
}

TEST_F(MembershipTest, FormsWhenAllWorkersAreThere) {
  EXPECT_EQ(membership_.Detail(), "waiting for 2 of 2 workers");
  Join("a");
  EXPECT_EQ(membership_.Detail(), "waiting for 1 of 2 workers");
  EXPECT_EQ(Trace(), "");
  Join("b");
  EXPECT_EQ(Trace(),
            "assign 1 epoch 1 w/ranks=0-0 blocks 48; assign 2 epoch 1 w/ranks=1-2 blocks 48");
  ASSERT_TRUE(membership_.LoadProgress(WorkerId(2), Epoch(1), {1, 2}, {0.5, 1.0}, now_).ok());
  EXPECT_EQ(membership_.Detail(), "loading weights: 50 %");
  ASSERT_TRUE(membership_.Loaded(WorkerId(2), Epoch(1), 5, 6, now_, &actions_).ok());
  EXPECT_EQ(Trace(), "");
  ASSERT_TRUE(membership_.Loaded(WorkerId(1), Epoch(1), 5, 6, now_, &actions_).ok());
  EXPECT_EQ(Trace(), "connect 1 epoch 1 members 2; connect 2 epoch 1 members 2");
  ASSERT_TRUE(membership_.Ready(WorkerId(1), Epoch(1), now_, &actions_).ok());
  ASSERT_TRUE(membership_.Ready(WorkerId(2), Epoch(1), now_, &actions_).ok());
  EXPECT_EQ(Trace(), "ready 1");
  EXPECT_EQ(membership_.Detail(), "serving");
}

TEST_F(MembershipTest, AssignmentsNameEveryRankAndTheNeighboursOnTheHost) {
  WorkerDescription far = Worker("b");
  far.data.host_key = "other";
  Join("a");
  JoinAs(far);
  const auto& first = std::get<SendAssign>(actions_[0]).assignment;
  ASSERT_EQ(first.ranks.size(), 3u);
  EXPECT_EQ(first.ranks[2].worker, WorkerId(2));
  EXPECT_EQ(first.ranks[2].device, 1u);
  EXPECT_EQ(first.local_index, 0u);
  EXPECT_EQ(first.local_count, 1u);
  EXPECT_EQ(membership_.WorkerOfRank(2), WorkerId(2));
}

TEST_F(MembershipTest, WorkersOfOneHostAreCounted) {
  Join("a");
  Join("b");
  const auto& second = std::get<SendAssign>(actions_[1]).assignment;
  EXPECT_EQ(second.local_index, 1u);
  EXPECT_EQ(second.local_count, 2u);
}

// The message of every refusal names the field and both sides.
TEST_F(MembershipTest, RefusesWorkersThatCannotServe) {
  WorkerDescription build = Worker("a");
  build.build = "b2";
  WorkerDescription devices = Worker("a");
  devices.num_devices = 0;
  WorkerDescription memory = Worker("a");
  memory.memory_bytes = 3;
  const std::vector<std::tuple<WorkerDescription, std::string, std::string>> cases = {
      {build, "build", "build: the worker runs b2 and the coordinator b1"},
      {devices, "num_devices", "the plan gives each worker 1 ranks and this one can hold 0"},
      {memory, "memory_bytes", "rank 0 does not fit: 7 bytes miss"},
  };
  for (const auto& [worker, field, message] : cases) {
    const absl::Status status = membership_.Join(worker, now_, &actions_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(FieldOf(status), field);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  EXPECT_TRUE(membership_.members().empty());
}

TEST_F(MembershipTest, LostWorkerEndsTheEpochAndItsReplacementFormsTheNext) {
  FormReady();
  membership_.Lost(WorkerId(1), "stream broke", now_, &actions_);
  EXPECT_EQ(Trace(), "lost 1: worker 1 (pid 7 on node) was lost: stream broke; release 2 epoch 1");
  EXPECT_EQ(membership_.state(), Membership::State::kReleasing);
  Join("c");
  EXPECT_EQ(Trace(), "");  // worker 2 has not let go yet
  ASSERT_TRUE(membership_.Released(WorkerId(2), Epoch(1), now_, &actions_).ok());
  // The survivor keeps its place, and with it its weights.
  EXPECT_EQ(Trace(),
            "assign 3 epoch 2 w/ranks=0-0 blocks 48; assign 2 epoch 2 w/ranks=1-2 blocks 48");
}

TEST_F(MembershipTest, SpareTakesOverAtOnce) {
  Join("a");
  Join("b");
  Join("spare");
  for (const uint64_t id : {1, 2}) {
    ASSERT_TRUE(membership_.Loaded(WorkerId(id), Epoch(1), 5, 6, now_, &actions_).ok());
  }
  actions_.clear();
  membership_.Lost(WorkerId(2), "killed", now_, &actions_);
  EXPECT_EQ(Trace(), "release 1 epoch 1");  // the spare has nothing to release
  now_ += absl::Seconds(1);
  ASSERT_TRUE(membership_.Released(WorkerId(1), Epoch(1), now_, &actions_).ok());
  EXPECT_EQ(Trace(),
            "assign 1 epoch 2 w/ranks=0-0 blocks 48; assign 3 epoch 2 w/ranks=1-2 blocks 48");
}

// A second loss while the epoch is being released: the spare has nothing to release and must not be
// waited for.
TEST_F(MembershipTest, SpareTakesOverDuringARelease) {
  FormReady();
  Join("spare");
  membership_.AbandonEpoch("no", now_, &actions_);
  membership_.Lost(WorkerId(2), "killed", now_, &actions_);
  actions_.clear();
  ASSERT_TRUE(membership_.Released(WorkerId(1), Epoch(1), now_, &actions_).ok());
  EXPECT_EQ(Trace(),
            "assign 1 epoch 2 w/ranks=0-0 blocks 48; assign 3 epoch 2 w/ranks=1-2 blocks 48");
}

TEST_F(MembershipTest, WorkerThatHoldsWeightsGetsTheirPlace) {
  WorkerDescription keeper = Worker("a");
  keeper.held_weights = "w/ranks=1-2";
  JoinAs(keeper);
  Join("b");
  EXPECT_EQ(Trace(),
            "assign 2 epoch 1 w/ranks=0-0 blocks 48; assign 1 epoch 1 w/ranks=1-2 blocks 48");
}

TEST_F(MembershipTest, SameProcessJoiningAgainReplacesItsOldStream) {
  Join("a");
  EXPECT_EQ(Join("a"), WorkerId(2));
  EXPECT_EQ(Trace(), "close 1 ABORTED");
  EXPECT_EQ(membership_.Detail(), "waiting for 1 of 2 workers");
}

TEST_F(MembershipTest, SilentWorkerIsDeclaredDead) {
  FormReady();
  now_ += absl::Seconds(1);
  membership_.Heard(WorkerId(2), now_);
  membership_.Tick(now_, &actions_);
  EXPECT_EQ(Trace(), "");
  now_ += absl::Milliseconds(600);
  membership_.Tick(now_, &actions_);
  EXPECT_EQ(Trace(),
            "lost 1: worker 1 (pid 7 on node) was lost: not heard for 1.6s; release 2 epoch 1; "
            "close 1 UNAVAILABLE");
}

TEST_F(MembershipTest, WorkerThatNeverReleasesIsClosed) {
  FormReady();
  membership_.AbandonEpoch("step 9 passed its deadline", now_, &actions_);
  EXPECT_EQ(Trace(), "lost 1: step 9 passed its deadline; release 1 epoch 1; release 2 epoch 1");
  ASSERT_TRUE(membership_.Released(WorkerId(1), Epoch(1), now_, &actions_).ok());
  now_ += absl::Seconds(11);
  membership_.Heard(WorkerId(1), now_);
  membership_.Heard(WorkerId(2), now_);
  membership_.Tick(now_, &actions_);
  EXPECT_EQ(Trace(), "close 2 UNAVAILABLE");
  EXPECT_EQ(membership_.Detail(), "waiting for 1 of 2 workers");
}

TEST_F(MembershipTest, RankFailureReleasesTheEpoch) {
  FormReady();
  ASSERT_TRUE(membership_
                  .RankFailed(WorkerId(2), Epoch(1), 1, absl::UnavailableError("peer gone"), false,
                              now_, &actions_)
                  .ok());
  EXPECT_EQ(Trace(),
            "lost 1: rank 1 on node (pid 7) failed: peer gone; release 1 epoch 1; release 2 epoch "
            "1");
  ASSERT_TRUE(membership_.Released(WorkerId(1), Epoch(1), now_, &actions_).ok());
  ASSERT_TRUE(membership_.Released(WorkerId(2), Epoch(1), now_, &actions_).ok());
  EXPECT_EQ(membership_.epoch(), Epoch(2));
}

TEST_F(MembershipTest, FatalFailureEndsTheInstance) {
  Join("a");
  Join("b");
  actions_.clear();
  ASSERT_TRUE(membership_
                  .RankFailed(WorkerId(1), Epoch(1), 0, absl::InvalidArgumentError("bad tensor x"),
                              true, now_, &actions_)
                  .ok());
  EXPECT_THAT(Trace(), HasSubstr("failed: rank 0 on node (pid 7) failed: bad tensor x"));
}

// Another model on one worker's disk is that worker's problem only.
TEST_F(MembershipTest, FailedPreconditionCostsTheWorkerItsStream) {
  Join("a");
  Join("b");
  actions_.clear();
  ASSERT_TRUE(membership_
                  .RankFailed(WorkerId(1), Epoch(1), 0,
                              absl::FailedPreconditionError("model_fingerprint: ab is not cd"),
                              true, now_, &actions_)
                  .ok());
  EXPECT_EQ(Trace(), "release 2 epoch 1; close 1 FAILED_PRECONDITION");
  EXPECT_EQ(membership_.Detail(), "releasing the last epoch");
}

TEST_F(MembershipTest, FormationsThatFailAreRetriedWithGrowingPauses) {
  Join("a");
  Join("b");
  for (int attempt = 0; attempt < 3; ++attempt) {
    const Epoch epoch = membership_.epoch();
    membership_.AbandonEpoch("no", now_, &actions_);
    for (const uint64_t id : {1, 2}) {
      ASSERT_TRUE(membership_.Released(WorkerId(id), epoch, now_, &actions_).ok());
    }
    EXPECT_EQ(membership_.state(), Membership::State::kWaiting);
    const absl::Duration pause = absl::Milliseconds(100) * (1 << attempt);
    membership_.Tick(now_ + pause - absl::Milliseconds(1), &actions_);
    EXPECT_EQ(membership_.state(), Membership::State::kWaiting);
    now_ += pause;
    membership_.Tick(now_, &actions_);
    EXPECT_EQ(membership_.state(), Membership::State::kLoading);
  }
}

// A worker that serves leaves only when nothing runs any more; a spare leaves at once.
TEST_F(MembershipTest, LeavingWorkerIsLetGoWhenDrained) {
  FormReady();
  const WorkerId spare = Join("spare");
  membership_.Leaving(spare, &actions_);
  EXPECT_EQ(Trace(), "shutdown 3");
  EXPECT_FALSE(membership_.leaving());
  membership_.Leaving(WorkerId(2), &actions_);
  EXPECT_EQ(Trace(), "");
  EXPECT_TRUE(membership_.leaving());
  membership_.Drained(&actions_);
  EXPECT_EQ(Trace(), "shutdown 2");
  membership_.Lost(WorkerId(2), "left", now_, &actions_);
  EXPECT_THAT(Trace(), HasSubstr("release 1 epoch 1"));
  EXPECT_FALSE(membership_.leaving());
}

TEST_F(MembershipTest, MessagesOfOldEpochsAreDropped) {
  FormReady();
  membership_.Lost(WorkerId(1), "killed", now_, &actions_);
  ASSERT_TRUE(membership_.Released(WorkerId(2), Epoch(1), now_, &actions_).ok());
  Join("c");
  ASSERT_EQ(membership_.epoch(), Epoch(2));
  actions_.clear();
  EXPECT_TRUE(membership_.Ready(WorkerId(2), Epoch(1), now_, &actions_).ok());
  EXPECT_TRUE(membership_.Loaded(WorkerId(2), Epoch(1), 1, 1, now_, &actions_).ok());
  EXPECT_TRUE(
      membership_
          .RankFailed(WorkerId(2), Epoch(1), 1, absl::InternalError("late"), true, now_, &actions_)
          .ok());
  EXPECT_EQ(Trace(), "");
}

TEST_F(MembershipTest, MessagesOutOfOrderAreProtocolErrors) {
  Join("a");
  const absl::Status early = membership_.Ready(WorkerId(1), Epoch(1), now_, &actions_);
  EXPECT_EQ(early.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(early.message()),
              HasSubstr("Ready of epoch 1 is out of order: the instance is waiting in epoch 0"));
  Join("b");
  EXPECT_FALSE(membership_.Ready(WorkerId(1), Epoch(1), now_, &actions_).ok());
  EXPECT_FALSE(membership_.Loaded(WorkerId(1), Epoch(9), 1, 1, now_, &actions_).ok());
  EXPECT_FALSE(membership_.LoadProgress(WorkerId(1), Epoch(1), {2}, {0.1}, now_).ok());
  EXPECT_TRUE(membership_.Loaded(WorkerId(1), Epoch(1), 1, 1, now_, &actions_).ok());
  EXPECT_FALSE(membership_.Loaded(WorkerId(1), Epoch(1), 1, 1, now_, &actions_).ok());
}

}  // namespace
}  // namespace essor::coordinator
