#include "worker/engine/token_return.h"

#include <atomic>
#include <functional>
#include <span>
#include <thread>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "gtest/gtest.h"
#include "worker/parallel/local_cluster.h"

namespace essor::worker {
namespace {

constexpr SlotLimits kLimits{.num_slots = 20'000,
                             .num_blocks = 100,
                             .block_tokens = 4,
                             .max_context_tokens = 40,
                             .max_step_tokens = 20'000,
                             .vocab_size = 1'000'000};

StepInput Sampling(std::vector<uint32_t> slots) {
  StepInput input;
  for (const uint32_t slot : slots) input.sequences.push_back({.slot = slot, .tokens = {1}});
  return input;
}

StepInput Decode(uint32_t slot) {
  StepInput input;
  input.sequences.push_back({.slot = slot, .sample = false});
  return input;
}

// The token that `slot` goes on from.
absl::Status ExpectToken(SequenceSlots& slots, uint32_t slot, TokenId token) {
  StepRows rows;
  const absl::Status status = slots.Apply(Decode(slot), &rows);
  if (!status.ok()) return status;
  if (rows.token_ids == std::vector<uint32_t>{token}) return absl::OkStatus();
  return absl::InternalError(
      absl::StrFormat("slot %d has token %d, not %d", slot, rows.token_ids[0], token));
}

absl::Status StartSlots(SequenceSlots& slots, uint32_t count) {
  StepInput input;
  for (uint32_t slot = 0; slot < count; ++slot) {
    input.starts.push_back({.slot = slot, .sampling = {}});
    if (slot < kLimits.num_blocks) {
      input.sequences.push_back({.slot = slot, .tokens = {1}, .new_blocks = {slot}});
    }
  }
  StepRows rows;
  return slots.Apply(input, &rows);
}

// First and last stage as two ranks. The last one sends what `give` says.
absl::Status RunStages(
    bool shared_memory, const std::function<absl::Status(Communicator&)>& give,
    const std::function<absl::Status(TokenReturn&, SequenceSlots&, Communicator&)>& take) {
  LocalCluster cluster({{1, shared_memory}, {1, shared_memory}});
  ESSOR_RETURN_IF_ERROR(cluster.create_status());
  return cluster.OnOneGroup(1, 1 << 20, [&](uint32_t rank, Communicator& group) -> absl::Status {
    if (rank == 1) return give(group);
    SequenceSlots slots(kLimits);
    TokenReturn awaited(&group, 1, kLimits.num_slots);
    return take(awaited, slots, group);
  });
}

absl::Status SendTokens(Communicator& group, std::vector<TokenId> tokens) {
  return group.Send(std::as_bytes(std::span<const TokenId>(tokens)), 0);
}

class TokenReturnTest : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Transports, TokenReturnTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "SharedMemory" : "Tcp"; });

TEST_P(TokenReturnTest, TokensAreTakenWhenAStepGoesOnFromThem) {
  std::atomic<int> allowed{0};  // messages that the last stage may have sent
  const absl::Status status = RunStages(
      GetParam(),
      [&](Communicator& group) -> absl::Status {
        for (int i = 0; i < 3; ++i) {
          while (allowed <= i) std::this_thread::yield();
          const auto base = static_cast<TokenId>(10 * i);
          ESSOR_RETURN_IF_ERROR(SendTokens(group, {base + 1, base + 2}));
        }
        return absl::OkStatus();
      },
      [&](TokenReturn& awaited, SequenceSlots& slots, Communicator&) -> absl::Status {
        ESSOR_RETURN_IF_ERROR(StartSlots(slots, 6));
        // Three steps of other sequences each go before anything came back.
        for (const uint32_t first : {0u, 2u, 4u}) {
          const StepInput input = Sampling({first, first + 1});
          ESSOR_RETURN_IF_ERROR(awaited.TakeFor(input, &slots));
          ESSOR_RETURN_IF_ERROR(awaited.Expect(input, &slots));
        }
        // Slot 3 is of the second step: the third one's tokens need not be there.
        allowed = 2;
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(Decode(3), &slots));
        ESSOR_RETURN_IF_ERROR(ExpectToken(slots, 3, 12));
        ESSOR_RETURN_IF_ERROR(ExpectToken(slots, 0, 1));
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(Decode(1), &slots));
        allowed = 3;
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(Decode(4), &slots));
        return ExpectToken(slots, 4, 21);
      });
  EXPECT_TRUE(status.ok()) << status;
}

// A sequence that ended before its last token came back has left its slot to another one.
TEST_P(TokenReturnTest, TokensOfASequenceThatHasLeftAreDropped) {
  const absl::Status status = RunStages(
      GetParam(),
      [](Communicator& group) -> absl::Status {
        ESSOR_RETURN_IF_ERROR(SendTokens(group, {11, 12}));
        return SendTokens(group, {21, 22});
      },
      [](TokenReturn& awaited, SequenceSlots& slots, Communicator&) -> absl::Status {
        ESSOR_RETURN_IF_ERROR(StartSlots(slots, 2));
        StepInput input = Sampling({0, 1});
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(input, &slots));
        ESSOR_RETURN_IF_ERROR(awaited.Expect(input, &slots));
        // Slot 0 starts anew and samples; slot 1 goes on.
        StepInput release;
        release.release_slots = {0};
        release.starts.push_back({.slot = 0, .sampling = {}});
        release.sequences.push_back(
            {.slot = 0, .tokens = {5}, .new_blocks = {50}, .sample = false});
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(release, &slots));
        StepRows rows;
        ESSOR_RETURN_IF_ERROR(slots.Apply(release, &rows));
        ESSOR_RETURN_IF_ERROR(awaited.Expect(release, &slots));
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(Decode(1), &slots));
        ESSOR_RETURN_IF_ERROR(ExpectToken(slots, 1, 12));
        if (slots.Apply(Decode(0), &rows).ok()) {
          return absl::InternalError(
              "the token of the sequence before went to the slot's next one");
        }
        SequenceSlots fresh(kLimits);
        ESSOR_RETURN_IF_ERROR(StartSlots(fresh, 2));
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(input, &fresh));
        ESSOR_RETURN_IF_ERROR(awaited.Expect(input, &fresh));
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(Decode(0), &fresh));
        return ExpectToken(fresh, 0, 21);
      });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(TokenReturnTest, WaitingEndsAtTheDeadline) {
  const absl::Status status = RunStages(
      GetParam(),
      [](Communicator& group) -> absl::Status {
        // Never sends, and stays until the other end has given up.
        std::byte nothing[1];
        (void)group.Receive(nothing, 0);
        return absl::OkStatus();
      },
      [](TokenReturn& awaited, SequenceSlots& slots, Communicator& group) -> absl::Status {
        ESSOR_RETURN_IF_ERROR(StartSlots(slots, 1));
        const StepInput input = Sampling({0});
        ESSOR_RETURN_IF_ERROR(awaited.TakeFor(input, &slots));
        ESSOR_RETURN_IF_ERROR(awaited.Expect(input, &slots));
        group.SetDeadline(Clock::Steady().Now() + absl::Milliseconds(50));
        return awaited.TakeFor(Decode(0), &slots);
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

// However many steps the first stage runs ahead, and however much they sample, the last one can
// send: it does not wait for a step that only follows its answer.
TEST_P(TokenReturnTest, NeverOwesMoreThanIsBuffered) {
  for (const uint32_t slots_each : {1u, 100u, 20'000u}) {
    constexpr int kSteps = 300;
    std::atomic<int> sent{0};
    const absl::Status status = RunStages(
        GetParam(),
        [&](Communicator& group) -> absl::Status {
          for (; sent < kSteps; ++sent) {
            ESSOR_RETURN_IF_ERROR(SendTokens(group, std::vector<TokenId>(slots_each, 7)));
          }
          return absl::OkStatus();
        },
        [&](TokenReturn& awaited, SequenceSlots& slots, Communicator&) -> absl::Status {
          ESSOR_RETURN_IF_ERROR(StartSlots(slots, slots_each));
          std::vector<uint32_t> all;
          for (uint32_t slot = 0; slot < slots_each; ++slot) all.push_back(slot);
          const StepInput input = Sampling(all);
          for (int i = 0; i < kSteps; ++i) {
            ESSOR_RETURN_IF_ERROR(awaited.TakeFor(input, &slots));
            ESSOR_RETURN_IF_ERROR(awaited.Expect(input, &slots));
          }
          // Nothing more is taken from here on.
          const absl::Time deadline = Clock::Steady().Now() + absl::Seconds(20);
          while (sent < kSteps) {
            if (Clock::Steady().Now() > deadline) return absl::InternalError("a send waits");
            std::this_thread::yield();
          }
          return absl::OkStatus();
        });
    EXPECT_TRUE(status.ok()) << slots_each << " tokens: " << status;
  }
}

}  // namespace
}  // namespace essor::worker
