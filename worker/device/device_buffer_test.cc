#include "worker/device/device_buffer.h"

#include <cstdint>
#include <utility>

#include "gtest/gtest.h"

namespace essor::worker {
namespace {

TEST(DeviceBufferTest, IsZeroFilledAndMovable) {
  auto buffer = DeviceBuffer::Allocate(10000, "test");
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->data()[9999], std::byte{0});
  DeviceBuffer moved = *std::move(buffer);
  EXPECT_EQ(moved.size(), 10000u);
  EXPECT_NE(moved.data(), nullptr);
}

TEST(DeviceBufferTest, NamesPurposeAndSizeWhenThereIsNoMemory) {
  const auto buffer = DeviceBuffer::Allocate(uint64_t{1} << 60, "KV blocks of rank 3");
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(buffer.status().message().find("KV blocks of rank 3"), std::string::npos);
}

TEST(ArenaTest, MeasuredSizeIsExactlyWhatTheSameCallsTake) {
  const auto take = [](Arena& arena) {
    float* first = arena.Take<float>(3);
    uint32_t* second = arena.Take<uint32_t>(100);
    return std::make_pair(first, second);
  };
  Arena measure = Arena::Measure();
  take(measure);
  auto arena = Arena::Allocate(measure.used_bytes(), "test");
  ASSERT_TRUE(arena.ok());
  const auto [first, second] = take(*arena);
  EXPECT_EQ(arena->used_bytes(), measure.used_bytes());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<std::byte*>(second) - reinterpret_cast<std::byte*>(first), 64);
}

}  // namespace
}  // namespace essor::worker
