// Segments of the ranks of this process, for each other: they share one mapping.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "worker/parallel/segment.h"

namespace essor::worker {

// Thread-safe. Holds nothing alive: a segment belongs to the communicators that use it.
class LocalSegments {
 public:
  struct Key {
    uint64_t epoch = 0;
    uint64_t group_key = 0;
    uint32_t member = 0;
    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.epoch, key.group_key, key.member);
    }
  };

  void Add(const std::shared_ptr<Segment>& segment) {
    const SegmentIdentity& identity = segment->identity();
    absl::MutexLock lock(&mutex_);
    absl::erase_if(segments_, [](const auto& entry) { return entry.second.expired(); });
    segments_.insert_or_assign(Key{identity.epoch, identity.group_key, identity.member}, segment);
  }

  // Null while that member has not added it.
  std::shared_ptr<const Segment> Find(const Key& key) const {
    absl::MutexLock lock(&mutex_);
    const auto found = segments_.find(key);
    return found == segments_.end() ? nullptr : found->second.lock();
  }

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<Key, std::weak_ptr<Segment>> segments_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace essor::worker
