#include "common/bounded_queue.h"

#include <memory>
#include <thread>

#include "gtest/gtest.h"

namespace essor {
namespace {

TEST(BoundedQueueTest, RefusesWhenFullAndKeepsTheItem) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(queue.TryPush(std::move(second)));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(**queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(std::move(second)));
}

TEST(BoundedQueueTest, PopTimesOutOnAnEmptyQueue) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.Pop(absl::Milliseconds(1)), std::nullopt);
}

TEST(BoundedQueueTest, CloseDrainsThenEndsAndWakesWaiters) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(7));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(8));
  EXPECT_EQ(queue.Pop(), 7);
  EXPECT_EQ(queue.Pop(), std::nullopt);

  BoundedQueue<int> waited(1);
  std::thread consumer([&] { EXPECT_EQ(waited.Pop(), std::nullopt); });
  waited.Close();
  consumer.join();
}

TEST(BoundedQueueTest, AbandonDropsWhatIsLeftAndWakesWaiters) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(7));
  queue.Abandon();
  EXPECT_FALSE(queue.TryPush(8));
  EXPECT_EQ(queue.Pop(), std::nullopt);

  BoundedQueue<int> waited(1);
  std::thread consumer([&] { EXPECT_EQ(waited.Pop(), std::nullopt); });
  waited.Abandon();
  consumer.join();
}

}  // namespace
}  // namespace essor
