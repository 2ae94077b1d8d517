#include "worker/parallel/segment.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::HasSubstr;

constexpr SegmentIdentity kIdentity{
    .epoch = 3, .group_key = 9, .member = 1, .group_size = 4, .max_payload_bytes = 10000};

std::string OpenError(UniqueFd fd, const SegmentIdentity& expected) {
  const auto opened = Segment::Open(std::move(fd), expected);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(opened.status().message());
}

TEST(SegmentTest, RegionsLieApart) {
  for (const uint32_t members : {2u, 3u, 8u, 65u}) {
    for (const uint64_t payload : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, uint64_t{1} << 20}) {
      SegmentIdentity identity = kIdentity;
      identity.group_size = members;
      identity.max_payload_bytes = payload;
      const SegmentLayout layout(identity);
      EXPECT_GE(layout.ring_read, layout.ring_written + members * kLineBytes);
      EXPECT_GE(layout.slots, layout.ring_read + members * kLineBytes);
      EXPECT_GE(layout.slot_bytes, layout.table_bytes + payload);
      EXPECT_EQ(layout.rings, layout.slots + 2 * layout.slot_bytes);
      EXPECT_EQ(layout.total_bytes, layout.rings + size_t{members} * layout.ring_bytes);
      EXPECT_EQ(layout.ring_bytes & (layout.ring_bytes - 1), 0u) << "a power of two";
    }
  }
}

TEST(SegmentTest, APeerSeesWhatTheOwnerWrites) {
  auto created = Segment::Create(kIdentity);
  ASSERT_TRUE(created.ok()) << created.status();
  auto opened = Segment::Open(std::move(created->fd), kIdentity);
  ASSERT_TRUE(opened.ok()) << opened.status();
  created->segment->payload(1)[9999] = std::byte{42};
  created->segment->announcement().sequence.store(7);
  EXPECT_EQ((*opened)->payload(1)[9999], std::byte{42});
  EXPECT_EQ((*opened)->announcement().sequence.load(), 7u);
  EXPECT_EQ((*opened)->sleeping_on().load(), 0u);
}

TEST(SegmentTest, NobodyElseCanWriteOrResizeIt) {
  auto created = Segment::Create(kIdentity);
  ASSERT_TRUE(created.ok()) << created.status();
  const int fd = created->fd.get();
  EXPECT_EQ(ftruncate(fd, 4096), -1);
  EXPECT_EQ(ftruncate(fd, 1 << 30), -1);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(write(fd, "x", 1), -1);
}

TEST(SegmentTest, WhatWasNotExpectedIsNotMapped) {
  EXPECT_THAT(OpenError(UniqueFd(), kIdentity), HasSubstr("no shared memory was handed over"));

  auto created = Segment::Create(kIdentity);
  ASSERT_TRUE(created.ok()) << created.status();
  SegmentIdentity other = kIdentity;
  other.member = 2;
  EXPECT_THAT(OpenError(UniqueFd(dup(created->fd.get())), other),
              HasSubstr("another group, member or epoch"));
  other = kIdentity;
  other.max_payload_bytes = 1 << 20;
  EXPECT_THAT(OpenError(UniqueFd(dup(created->fd.get())), other), HasSubstr("bytes instead of"));

  // Of the right size, but its owner could still shrink it.
  UniqueFd unsealed(memfd_create("essor-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), static_cast<off_t>(SegmentLayout(kIdentity).total_bytes)), 0);
  EXPECT_THAT(OpenError(std::move(unsealed), kIdentity), HasSubstr("not sealed"));
}

TEST(SegmentTest, TooMuchMemoryIsAnError) {
  SegmentIdentity identity = kIdentity;
  identity.max_payload_bytes = uint64_t{1} << 50;
  const auto created = Segment::Create(identity);
  EXPECT_EQ(created.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(created.status().message()), HasSubstr("bytes of shared memory"));
}

}  // namespace
}  // namespace essor::worker
