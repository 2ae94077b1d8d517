#include "worker/parallel/segment.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "worker/parallel/communicator.h"

// Linux 5.1; older C library headers do not have it.
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace essor::worker {
namespace {

constexpr size_t kPageBytes = 4096;
// A message larger than its ring passes through in pieces; smaller rings would only add waits.
constexpr uint32_t kRingBytesMax = 256 << 10;
constexpr uint32_t kRingBytesMin = Communicator::kBufferedSendBytes;
// Nobody, the owner included, can resize the memory (which would turn reads into SIGBUS) or map it
// writable a second time.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

size_t PhysicalMemoryBytes() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

std::string ErrnoText() { return std::strerror(errno); }

}  // namespace

SegmentLayout::SegmentLayout(const SegmentIdentity& identity) {
  const size_t members = identity.group_size;
  ring_written = 4 * kLineBytes;
  ring_read = ring_written + members * kLineBytes;
  slots = RoundUp(ring_read + members * kLineBytes, kPageBytes);
  table_bytes = RoundUp(members * sizeof(PartEntry), kLineBytes);
  slot_bytes = RoundUp(table_bytes + identity.max_payload_bytes, kPageBytes);
  rings = slots + 2 * slot_bytes;
  const uint64_t wanted = std::min<uint64_t>(identity.max_payload_bytes, kRingBytesMax);
  ring_bytes = std::max(kRingBytesMin, static_cast<uint32_t>(std::bit_ceil(wanted)));
  total_bytes = rings + members * ring_bytes;
}

absl::StatusOr<Segment::Created> Segment::Create(const SegmentIdentity& identity) {
  const SegmentLayout layout(identity);
  // Reserving more than there is would not fail but call the kernel's out-of-memory killer.
  if (layout.total_bytes > PhysicalMemoryBytes() / 2) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%d bytes of shared memory wanted, more than half of the machine's", layout.total_bytes));
  }
  Created created;
  created.fd.Reset(memfd_create("essor-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!created.fd.valid()) return absl::UnavailableError("memfd_create: " + ErrnoText());
  const int fd = created.fd.get();
  // Reserved and mapped now, so that no step pays for page faults.
  if (ftruncate(fd, static_cast<off_t>(layout.total_bytes)) != 0 ||
      fallocate(fd, 0, 0, static_cast<off_t>(layout.total_bytes)) != 0) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "cannot reserve %d bytes of shared memory: %s", layout.total_bytes, ErrnoText()));
  }
  void* const base =
      mmap(nullptr, layout.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrFormat("cannot map %d bytes of shared memory: %s",
                                                        layout.total_bytes, ErrnoText()));
  }
  created.segment.reset(new Segment(identity, static_cast<std::byte*>(base)));
  // The memory is zero, which is the right start of every word.
  new (base) SegmentHeader{.total_bytes = layout.total_bytes, .identity = identity};
  if (fcntl(fd, F_ADD_SEALS, kSeals) != 0) {
    return absl::UnavailableError("cannot seal shared memory: " + ErrnoText());
  }
  return created;
}

absl::StatusOr<std::shared_ptr<const Segment>> Segment::Open(UniqueFd fd,
                                                             const SegmentIdentity& expected) {
  const SegmentLayout layout(expected);
  struct stat info {};
  if (!fd.valid() || fstat(fd.get(), &info) != 0) {
    return absl::InvalidArgumentError("no shared memory was handed over");
  }
  if (info.st_size != static_cast<off_t>(layout.total_bytes)) {
    return absl::InvalidArgumentError(absl::StrFormat("shared memory of %d bytes instead of %d",
                                                      info.st_size, layout.total_bytes));
  }
  if (fcntl(fd.get(), F_GET_SEALS) != kSeals) {
    return absl::InvalidArgumentError("shared memory that is not sealed");
  }
  void* const base =
      mmap(nullptr, layout.total_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrFormat("cannot map %d bytes of shared memory: %s",
                                                        layout.total_bytes, ErrnoText()));
  }
  std::shared_ptr<const Segment> segment(new Segment(expected, static_cast<std::byte*>(base)));
  SegmentHeader header;
  std::memcpy(&header, base, sizeof(header));
  if (header.magic != kSegmentMagic || header.total_bytes != layout.total_bytes ||
      !(header.identity == expected)) {
    return absl::InvalidArgumentError("shared memory of another group, member or epoch");
  }
  return segment;
}

Segment::~Segment() { munmap(base_, layout_.total_bytes); }

}  // namespace essor::worker
