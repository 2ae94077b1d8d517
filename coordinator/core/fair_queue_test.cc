#include "coordinator/core/fair_queue.h"

#include <string>

#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

class FairQueueTest : public testing::Test {
 protected:
  FairQueue::Place Push(const std::string& tenant, int32_t priority, uint64_t id) {
    return queue_.Push(queue_.Tenant(tenant), priority, RequestId(id));
  }
  void Charge(const std::string& tenant, double work) {
    const uint32_t id = queue_.Tenant(tenant);
    queue_.Charge(id, work);
    queue_.Settle();
    queue_.Forget(id);
  }
  uint64_t Front() const { return queue_.Front().value(); }

  FairQueue queue_{{{"heavy", 3.0}}};
};

TEST_F(FairQueueTest, OneTenantIsServedInOrder) {
  const auto first = Push("a", 0, 1);
  Push("a", 0, 2);
  EXPECT_EQ(Front(), 1u);
  queue_.Erase(first);
  EXPECT_EQ(Front(), 2u);
  EXPECT_EQ(queue_.size(), 1u);
}

TEST_F(FairQueueTest, PriorityComesBeforeFairness) {
  Push("a", 0, 1);
  Push("a", 1, 2);
  Charge("a", 1000);
  Push("b", 0, 3);
  EXPECT_EQ(Front(), 2u);
  EXPECT_EQ(queue_.FrontPriority(), 1);
}

TEST_F(FairQueueTest, TheLeastServedTenantGoesFirst) {
  Push("a", 0, 1);
  Push("b", 0, 2);
  Charge("a", 10);
  EXPECT_EQ(Front(), 2u);
  Charge("b", 11);
  EXPECT_EQ(Front(), 1u);
}

TEST_F(FairQueueTest, WeightsAreShares) {
  Push("heavy", 0, 1);
  Push("b", 0, 2);
  Charge("heavy", 29);
  Charge("b", 10);
  EXPECT_EQ(Front(), 1u);
  Charge("heavy", 2);
  EXPECT_EQ(Front(), 2u);
}

// A tenant that had nothing to do has saved nothing up.
TEST_F(FairQueueTest, IdlingSavesNothingUp) {
  Push("a", 0, 1);
  Charge("a", 100);
  Push("b", 0, 2);
  EXPECT_EQ(queue_.Served(queue_.Tenant("b")), 100);
  Charge("b", 1);
  EXPECT_EQ(Front(), 1u);
}

// Nor are debts forgotten by leaving and coming back.
TEST_F(FairQueueTest, DebtsStay) {
  const auto place = Push("a", 0, 1);
  Push("b", 0, 2);
  Charge("a", 50);
  queue_.Erase(place);
  queue_.Forget(place.tenant);
  Push("a", 0, 3);
  EXPECT_EQ(queue_.Served(queue_.Tenant("a")), 50);
  EXPECT_EQ(Front(), 2u);
}

// Tenants without debts are not remembered, however many there were.
TEST_F(FairQueueTest, IdleTenantsAreForgotten) {
  for (uint64_t i = 0; i < 100000; ++i) {
    const auto place = Push(std::to_string(i), 0, i);
    queue_.Charge(place.tenant, static_cast<double>(i % 7));
    queue_.Erase(place);
    queue_.Forget(place.tenant);
  }
  EXPECT_LE(queue_.num_tenants(), 5000u);
  EXPECT_TRUE(queue_.empty());
}

}  // namespace
}  // namespace essor::coordinator
