// The KV memory of one data-parallel group: who has which blocks, what is cached, what is promised.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/ids.h"
#include "coordinator/core/block_pool.h"
#include "coordinator/core/prefix_index.h"
#include "model/plan/kv_kinds.h"

namespace essor::coordinator {

// The memory of one running sequence. Only KvCache changes it.
struct KvSequence {
  // Block i holds positions i * block_tokens ...; of layers that read all positions.
  std::vector<BlockId> blocks{};
  // Of layers that read the last positions: block first_window_block + i is window_blocks[i]; those
  // before were given back.
  uint32_t first_window_block = 0;
  std::vector<BlockId> window_blocks{};
  // The index's nodes of blocks 0 .. path.size() - 1, behind the root path's; empty without blocks.
  PrefixIndex::NodeId root = 0;
  std::vector<PrefixIndex::NodeId> path{};
  uint32_t num_tokens = 0;  // positions that have places
  // Promised and not taken yet.
  uint32_t reserved = 0;
  uint32_t reserved_windows = 0;
};

// Every block is in exactly one place: free, in a sequence's table only, or in a node of the prefix
// index (which sequences that hold the node share). Blocks are reserved by number when a sequence
// begins and taken as it grows; free ones first, then cached ones that nobody holds. Shared blocks
// are never written: what a sequence appends to is its own, a copy where another one began the
// block (Fork).
//
// Deterministic, thread-compatible.
class KvCache {
 public:
  struct Options {
    model::KvKinds kinds;
    uint32_t block_tokens = 16;
    bool prefix_cache = true;  // false: nothing outlives its last user
  };

  KvCache(const Options& options, const model::KvCapacity& capacity);

  struct Begin {
    std::span<const TokenId> tokens;  // of the sequence as far as they are known, not empty
    std::string salt;
    uint32_t reserve_tokens = 0;              // positions to reserve blocks for
    uint32_t max_shared_tokens = UINT32_MAX;  // of the prefix that may come out of the cache
    StepId step{};
  };
  // What a new sequence finds.
  struct Found {
    uint32_t context_tokens = 0;  // positions that need not be computed; below tokens.size()
    // Where known tokens end although their states are not kept: worth a snapshot.
    uint32_t branch_tokens = 0;
    std::optional<uint32_t> snapshot{};  // with states and context_tokens > 0
    struct Copy {
      BlockId from;
      BlockId to;
      bool window;
    };
    std::vector<Copy> copies{};
  };
  // How many leading tokens a sequence would find cached; changes nothing.
  uint32_t CachedTokens(const Begin& begin) const;
  // Whether Start() would succeed, when `spare` came back first.
  struct Spare {
    uint32_t blocks = 0;
    uint32_t windows = 0;
  };
  bool CanStart(const Begin& begin, const Spare& spare) const;
  // What ending the sequence gives back, at most: some of it may be shared.
  static Spare SpareOf(const KvSequence& sequence);
  // Nullopt, with nothing changed, when too few blocks can be promised.
  std::optional<Found> Start(const Begin& begin, KvSequence* sequence);
  // Likewise for another continuation of a prompt (`begin.tokens`) that `source` has a place for
  // every token of: all but the prompt's last token is shared, its last block as a copy.
  std::optional<Found> Fork(const Begin& begin, const KvSequence& source, KvSequence* sequence);

  // Gives back the window blocks that no position from num_tokens on reads.
  void ReleaseBehind(KvSequence* sequence);
  // How many positions can be added now, at most `wanted`.
  uint32_t RoomFor(const KvSequence& sequence, uint32_t wanted) const;
  // Adds places for `count` positions, at most RoomFor(). The new blocks are appended.
  void Extend(KvSequence* sequence, uint32_t count, std::vector<BlockId>* new_blocks,
              std::vector<BlockId>* new_window_blocks);
  // Makes the full blocks of `tokens` (the sequence's, from position 0) findable, as far as they
  // have places.
  void Publish(KvSequence* sequence, std::span<const TokenId> tokens);
  // A place for the states at num_tokens, which must end a published block; nullopt when there is
  // one already or none can be had.
  std::optional<uint32_t> PlaceSnapshot(KvSequence* sequence, StepId step);
  // What the sequence shared or published is not to be found by others: some of it is not sound.
  void Hide(const KvSequence& sequence);
  void End(KvSequence* sequence);

  // Whether a sequence of `num_tokens` positions could ever be served.
  bool CanEverFit(uint32_t num_tokens) const;
  uint32_t BlocksFor(uint32_t num_tokens) const {
    return (num_tokens + options_.block_tokens - 1) / options_.block_tokens;
  }

  uint32_t num_blocks() const { return pool_.num_blocks(); }
  // Held by sequences, or promised to them.
  uint32_t num_used() const { return pool_.num_blocks() - pool_.num_free() - num_cached(); }
  uint32_t num_cached() const { return options_.kinds.full ? index_.num_evictable() : 0; }
  uint32_t num_reserved() const { return reserved_; }
  uint32_t num_window_blocks_used() const {
    return windows_.num_blocks() - windows_.num_free() - index_.num_evictable_windows();
  }
  uint32_t num_nodes() const { return index_.num_nodes(); }

 private:
  struct Match {
    std::vector<PrefixIndex::NodeId> path;  // known
    uint32_t depth = 0;                     // usable, in blocks
  };
  // Blocks a sequence still lacks when it shares `depth` blocks of `path`.
  struct Need {
    uint32_t blocks = 0;
    uint32_t windows = 0;
    uint32_t revived = 0;  // shared ones that count as available as long as nobody holds them
    uint32_t revived_windows = 0;
  };

  Match FindMatch(PrefixIndex::NodeId root, const Begin& begin) const;
  bool Usable(std::span<const PrefixIndex::NodeId> path, uint32_t depth, StepId step) const;
  uint32_t FirstWindowBlock(uint32_t position) const;
  uint32_t WindowReserve(uint32_t num_tokens) const;
  Need NeedOf(const Begin& begin, std::span<const PrefixIndex::NodeId> path, uint32_t depth) const;
  bool Available(const Need& need, const Spare& spare) const;
  std::optional<uint32_t> DepthThatFits(const Begin& begin, const Match& match,
                                        const Spare& spare) const;
  void Share(const Begin& begin, std::span<const PrefixIndex::NodeId> path, uint32_t depth,
             KvSequence* sequence);
  uint32_t available() const;
  uint32_t available_windows() const;
  BlockId Take(KvSequence* sequence);
  BlockId TakeWindow(KvSequence* sequence);
  void EvictLeaf();
  void GiveBack(const CachedBlock& cached);
  void Adopt(PrefixIndex::NodeId node, KvSequence* sequence, uint32_t index,
             std::optional<BlockId> window);
  void LimitNodes();
  void DropWindowBlock(KvSequence* sequence, uint32_t index);

  const Options options_;
  const uint32_t max_nodes_;
  BlockPool pool_;
  BlockPool windows_;
  std::vector<uint32_t> free_snapshots_;
  PrefixIndex index_;
  uint32_t reserved_ = 0;
  uint32_t reserved_windows_ = 0;
  uint64_t num_sequences_ = 0;  // begun; a salt of its own for each without a prefix cache
};

}  // namespace essor::coordinator
