#include "worker/parallel/host_key.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace essor::worker {
namespace {

// Inode of a namespace of this process; 0 = unknown.
uint64_t NamespaceInode(const char* path) {
  struct stat info {};
  return stat(path, &info) == 0 ? info.st_ino : 0;
}

}  // namespace

std::string HostKey() {
  std::string boot_id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot_id;
  const uint64_t network = NamespaceInode("/proc/self/ns/net");
  const uint64_t user = NamespaceInode("/proc/self/ns/user");
  if (boot_id.empty() || network == 0 || user == 0) return "";
  return absl::StrCat(boot_id, "/net:", network, "/user:", user, "/uid:", geteuid());
}

}  // namespace essor::worker
