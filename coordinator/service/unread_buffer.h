// What of a streamed answer its client has not taken yet: a bounded queue of messages.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

namespace essor::coordinator {

// Well below what clients take in one message by default, 4 MiB.
inline constexpr size_t kMaxMergedBytes = 1 << 20;

// Messages are protobuf's, or anything with ByteSizeLong(). One message at a time is being sent:
// the one that Next() gave last; it counts as unread until the next call. Not thread-safe.
template <typename Message>
class UnreadBuffer {
 public:
  // Any single message is taken, however large; further ones wait in `max_bytes` altogether.
  explicit UnreadBuffer(size_t max_bytes) : max_bytes_(max_bytes) {}
  size_t max_bytes() const { return max_bytes_; }

  // Appends `message`, or lets `merge(Message* last, const Message&)` add it to the last one that
  // waits (true when it did), up to kMaxMergedBytes. False, and nothing is kept of it, when there
  // is no room.
  template <typename Merge>
  bool Push(Message message, Merge merge) {
    const size_t bytes = message.ByteSizeLong();
    if (bytes_ > 0 && bytes_ + bytes > max_bytes_) return false;
    bytes_ += bytes;
    if (!waiting_.empty() && waiting_.back().bytes + bytes <= kMaxMergedBytes &&
        merge(&waiting_.back().message, message)) {
      waiting_.back().bytes += bytes;
    } else {
      waiting_.push_back({std::move(message), bytes});
    }
    return true;
  }

  // The message to be sent now, after the one given before has been sent; nullopt: none waits.
  std::optional<Message> Next() {
    bytes_ -= std::exchange(sending_bytes_, 0);
    if (waiting_.empty()) return std::nullopt;
    Entry next = std::move(waiting_.front());
    waiting_.pop_front();
    sending_bytes_ = next.bytes;
    return std::move(next.message);
  }

  // Drops what waits; the message that is being sent stays counted.
  void Clear() {
    waiting_.clear();
    bytes_ = sending_bytes_;
  }

 private:
  struct Entry {
    Message message;
    size_t bytes;  // of all that was merged into it, as it was counted: a merged one has fewer
  };

  const size_t max_bytes_;
  std::deque<Entry> waiting_;
  size_t bytes_ = 0;  // waiting or being sent
  size_t sending_bytes_ = 0;
};

}  // namespace essor::coordinator
