// Which blocks of which token sequences the KV cache holds: a tree whose nodes stand for one block
// of tokens each, behind all the blocks on the way from the root.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/ids.h"

namespace essor::coordinator {

// What a node holds in memory. Which of them exist depends on the model (model::KvKinds).
struct CachedBlock {
  std::optional<BlockId> block{};         // of the layers that read all positions
  std::optional<BlockId> window_block{};  // of the layers that read the last positions
  std::optional<uint32_t> snapshot{};     // states after the block's last token
};

// Roots are told apart by a salt: sequences of different salts share nothing. Tokens are compared,
// not only their hashes, so a hit is exact.
//
// Users: a sequence holds every node on its path (Hold / Drop), and the window blocks it still
// reads (HoldWindow / DropWindow). What nobody holds stays cached until it is evicted, least
// recently dropped first: blocks from the leaves upwards, window blocks and snapshots one by one.
// An evicted node's memory is handed to the caller, who owns it then. Everything is O(log n).
//
// Deterministic: equal calls give equal answers. Thread-compatible.
class PrefixIndex {
 public:
  using NodeId = uint32_t;

  explicit PrefixIndex(uint32_t block_tokens) : block_tokens_(block_tokens) {}

  // The root of a salt, made when it is new. Held by the caller until Drop().
  NodeId HoldRoot(const std::string& salt);
  // The root of a salt that is in use or has cached nodes.
  std::optional<NodeId> FindRoot(const std::string& salt) const;
  // The child whose block is `tokens` (block_tokens of them).
  std::optional<NodeId> Find(NodeId parent, std::span<const TokenId> tokens) const;
  // A new node, held once; its window block too. Nullopt where one with an equal hash is in the
  // way. `parent` is held.
  std::optional<NodeId> Insert(NodeId parent, std::span<const TokenId> tokens,
                               const CachedBlock& cached);

  const CachedBlock& Of(NodeId node) const { return nodes_[node].cached; }
  bool IsHeld(NodeId node) const { return nodes_[node].holders > 0; }
  bool IsWindowHeld(NodeId node) const { return nodes_[node].window_holders > 0; }
  // The step that saves a node's snapshot; later ones may restore it.
  StepId SnapshotStep(NodeId node) const { return nodes_[node].snapshot_step; }

  void Hold(NodeId node);
  void Drop(NodeId node);
  void HoldWindow(NodeId node);
  void DropWindow(NodeId node);
  // Another block with the same content; the old one is the caller's then. Nobody holds `node`.
  BlockId ReplaceBlock(NodeId node, BlockId block);
  // Likewise; nobody holds its window block, and the caller does from then on.
  std::optional<BlockId> ReplaceWindowBlock(NodeId node, BlockId block);
  void SetSnapshot(NodeId node, uint32_t snapshot, StepId step);
  // Marks a snapshot as just used.
  void TouchSnapshot(NodeId node);
  // Nobody finds the node, nor anything below it, any more.
  void Hide(NodeId node);

  // Blocks and window blocks that eviction can free.
  uint32_t num_evictable() const { return num_evictable_; }
  uint32_t num_evictable_windows() const { return static_cast<uint32_t>(window_lru_.size()); }
  uint32_t num_nodes() const { return static_cast<uint32_t>(nodes_.size() - unused_.size()); }

  // The least recently used leaf that nobody holds, with all that it had.
  std::optional<CachedBlock> EvictLeaf();
  std::optional<BlockId> EvictWindowBlock();
  // Not one that `step` saves: a place is written once in a step.
  std::optional<uint32_t> EvictSnapshot(StepId step);

 private:
  struct Node {
    NodeId parent = kNone;
    uint32_t num_children = 0;
    uint32_t holders = 0;
    uint32_t window_holders = 0;
    bool hidden = false;
    uint64_t hash = 0;
    uint64_t dropped = 0;         // when holders last became 0
    uint64_t window_dropped = 0;  // likewise of window_holders
    uint64_t snapshot_used = 0;
    StepId snapshot_step{};
    CachedBlock cached;
    std::vector<TokenId> tokens;  // of the block; of a root none
    std::string salt;             // of a root
  };
  static constexpr NodeId kNone = UINT32_MAX;
  using Lru = std::set<std::pair<uint64_t, NodeId>>;

  NodeId NewNode();
  void Abandon(NodeId node);

  const uint32_t block_tokens_;
  std::vector<Node> nodes_;
  std::vector<NodeId> unused_;
  absl::flat_hash_map<std::string, NodeId> roots_;
  absl::flat_hash_map<std::pair<NodeId, uint64_t>, NodeId> children_;
  Lru leaf_lru_;
  Lru window_lru_;
  Lru snapshot_lru_;
  uint64_t clock_ = 0;  // counts drops and uses
  uint32_t num_evictable_ = 0;
};

}  // namespace essor::coordinator
