#include "model/checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace essor::model {

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: a named pipe must not hang the open; it has no effect on regular files.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* address = nullptr;
  if (size > 0) {
    address = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  }
  const int error = errno;
  close(fd);
  if (address == MAP_FAILED) {
    return absl::ErrnoToStatus(error, absl::StrCat("cannot map ", path, " of ", size, " bytes"));
  }
  return std::unique_ptr<MappedFile>(
      new MappedFile(path, std::span(static_cast<const std::byte*>(address), size)));
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void Advise(std::span<const std::byte> bytes, MemoryAdvice advice) {
  if (bytes.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  uintptr_t end = begin + bytes.size();
  if (advice == MemoryAdvice::kDontNeed) {
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin >= end) return;
  } else {
    begin = begin / page * page;
  }
  const int flag = advice == MemoryAdvice::kWillNeed ? MADV_WILLNEED : MADV_DONTNEED;
  // A refused hint changes speed only.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, flag);
}

}  // namespace essor::model
