// The doors of a data plane: one thread that accepts connections on its listeners, reads each one's
// Hello, drops strangers, and keeps the rest until the rank they are meant for asks for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/parallel/socket.h"
#include "worker/parallel/wire.h"

namespace essor::worker {

// A connection whose Hello made sense.
struct Arrival {
  UniqueFd stream;
  UniqueFd segment;  // handed over with the Hello, if any
  Hello hello;
};

// Thread-safe. What is bounded: connections without a complete Hello (number and time), arrivals
// nobody has asked for (number), bytes read (one Hello). A peer that is beyond a bound is closed or
// waits in the kernel's backlog; it dials again until its own deadline.
class HandshakeServer {
 public:
  struct Options {
    UniqueFd tcp_listener;
    UniqueFd abstract_listener;  // invalid: none
    // EndpointKey of this data plane; other keys are meant for a process that was here before.
    uint64_t own_key = 0;
  };
  static absl::StatusOr<std::unique_ptr<HandshakeServer>> Create(Options options);
  virtual ~HandshakeServer() = default;

  // Who sent it to whom: the fields of Hello that name a connection.
  struct Key {
    uint64_t epoch = 0;
    uint64_t group_key = 0;
    uint32_t from_rank = 0;
    uint32_t to_rank = 0;
    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.epoch, key.group_key, key.from_rank, key.to_rank);
    }
  };
  // The newest live connection of that key, once.
  virtual std::optional<Arrival> Take(const Key& key) = 0;

  // Connections of epochs before `oldest_epoch` are closed and refused from now on.
  virtual void Fence(uint64_t oldest_epoch) = 0;
};

}  // namespace essor::worker
