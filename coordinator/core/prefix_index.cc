#include "coordinator/core/prefix_index.h"

#include <algorithm>

#include "common/check.h"

namespace essor::coordinator {
namespace {

// Mixes the tokens of a block (splitmix64's finaliser). Equal hashes are told apart by the tokens.
uint64_t HashOf(std::span<const TokenId> tokens) {
  uint64_t hash = tokens.size();
  for (const TokenId token : tokens) {
    hash = (hash ^ token) * 0xbf58476d1ce4e5b9ull;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebull;
    hash ^= hash >> 31;
  }
  return hash;
}

}  // namespace

PrefixIndex::NodeId PrefixIndex::NewNode() {
  if (unused_.empty()) {
    nodes_.emplace_back();
    return static_cast<NodeId>(nodes_.size() - 1);
  }
  const NodeId node = unused_.back();
  unused_.pop_back();
  nodes_[node] = Node();
  return node;
}

PrefixIndex::NodeId PrefixIndex::HoldRoot(const std::string& salt) {
  const auto [found, is_new] = roots_.try_emplace(salt, kNone);
  if (is_new) {
    const NodeId root = NewNode();
    found->second = root;
    nodes_[root].salt = salt;
    nodes_[root].holders = 1;
    return root;
  }
  Hold(found->second);
  return found->second;
}

std::optional<PrefixIndex::NodeId> PrefixIndex::FindRoot(const std::string& salt) const {
  const auto found = roots_.find(salt);
  if (found == roots_.end()) return std::nullopt;
  return found->second;
}

std::optional<PrefixIndex::NodeId> PrefixIndex::Find(NodeId parent,
                                                     std::span<const TokenId> tokens) const {
  const auto found = children_.find({parent, HashOf(tokens)});
  if (found == children_.end()) return std::nullopt;
  if (!std::ranges::equal(nodes_[found->second].tokens, tokens)) return std::nullopt;
  return found->second;
}

std::optional<PrefixIndex::NodeId> PrefixIndex::Insert(NodeId parent,
                                                       std::span<const TokenId> tokens,
                                                       const CachedBlock& cached) {
  ESSOR_CHECK(tokens.size() == block_tokens_ && IsHeld(parent) && !cached.snapshot.has_value());
  const uint64_t hash = HashOf(tokens);
  const auto [found, is_new] = children_.try_emplace({parent, hash}, kNone);
  if (!is_new) return std::nullopt;
  const NodeId id = NewNode();
  found->second = id;
  Node& node = nodes_[id];
  node.parent = parent;
  node.hash = hash;
  node.holders = 1;
  node.window_holders = cached.window_block.has_value() ? 1 : 0;
  node.cached = cached;
  node.tokens.assign(tokens.begin(), tokens.end());
  ++nodes_[parent].num_children;
  return id;
}

void PrefixIndex::Hold(NodeId id) {
  Node& node = nodes_[id];
  if (node.holders++ > 0 || node.parent == kNone) return;
  if (node.num_children == 0) leaf_lru_.erase({node.dropped, id});
  --num_evictable_;
}

void PrefixIndex::Drop(NodeId id) {
  Node& node = nodes_[id];
  ESSOR_CHECK(node.holders > 0);
  if (--node.holders > 0) return;
  node.dropped = ++clock_;
  if (node.parent != kNone) ++num_evictable_;
  if (node.num_children == 0) Abandon(id);
}

// Nobody holds the node and nothing hangs on it: a block waits to be evicted, a root is gone.
void PrefixIndex::Abandon(NodeId id) {
  Node& node = nodes_[id];
  if (node.parent != kNone) {
    leaf_lru_.insert({node.dropped, id});
    return;
  }
  roots_.erase(node.salt);
  node = Node();
  unused_.push_back(id);
}

void PrefixIndex::HoldWindow(NodeId id) {
  Node& node = nodes_[id];
  ESSOR_CHECK(node.cached.window_block.has_value());
  if (node.window_holders++ == 0) window_lru_.erase({node.window_dropped, id});
}

void PrefixIndex::DropWindow(NodeId id) {
  Node& node = nodes_[id];
  ESSOR_CHECK(node.window_holders > 0);
  if (--node.window_holders > 0) return;
  node.window_dropped = ++clock_;
  window_lru_.insert({node.window_dropped, id});
}

BlockId PrefixIndex::ReplaceBlock(NodeId id, BlockId block) {
  ESSOR_CHECK(!IsHeld(id) && nodes_[id].cached.block.has_value());
  return *std::exchange(nodes_[id].cached.block, block);
}

std::optional<BlockId> PrefixIndex::ReplaceWindowBlock(NodeId id, BlockId block) {
  Node& node = nodes_[id];
  ESSOR_CHECK(node.window_holders == 0);
  if (node.cached.window_block.has_value()) window_lru_.erase({node.window_dropped, id});
  node.window_holders = 1;
  return std::exchange(node.cached.window_block, block);
}

void PrefixIndex::SetSnapshot(NodeId id, uint32_t snapshot, StepId step) {
  Node& node = nodes_[id];
  ESSOR_CHECK(!node.cached.snapshot.has_value());
  node.cached.snapshot = snapshot;
  node.snapshot_step = step;
  node.snapshot_used = ++clock_;
  snapshot_lru_.insert({node.snapshot_used, id});
}

void PrefixIndex::TouchSnapshot(NodeId id) {
  Node& node = nodes_[id];
  snapshot_lru_.erase({node.snapshot_used, id});
  node.snapshot_used = ++clock_;
  snapshot_lru_.insert({node.snapshot_used, id});
}

void PrefixIndex::Hide(NodeId id) {
  Node& node = nodes_[id];
  if (std::exchange(node.hidden, true)) return;
  if (node.parent != kNone) children_.erase({node.parent, node.hash});
}

std::optional<CachedBlock> PrefixIndex::EvictLeaf() {
  if (leaf_lru_.empty()) return std::nullopt;
  const NodeId id = leaf_lru_.begin()->second;
  leaf_lru_.erase(leaf_lru_.begin());
  Node& node = nodes_[id];
  const CachedBlock cached = node.cached;
  const NodeId parent = node.parent;
  if (cached.window_block.has_value()) window_lru_.erase({node.window_dropped, id});
  if (cached.snapshot.has_value()) snapshot_lru_.erase({node.snapshot_used, id});
  if (!node.hidden) children_.erase({parent, node.hash});
  --num_evictable_;
  node = Node();
  unused_.push_back(id);
  if (--nodes_[parent].num_children == 0 && !IsHeld(parent)) Abandon(parent);
  return cached;
}

std::optional<BlockId> PrefixIndex::EvictWindowBlock() {
  if (window_lru_.empty()) return std::nullopt;
  const NodeId id = window_lru_.begin()->second;
  window_lru_.erase(window_lru_.begin());
  return *std::exchange(nodes_[id].cached.window_block, std::nullopt);
}

std::optional<uint32_t> PrefixIndex::EvictSnapshot(StepId step) {
  if (snapshot_lru_.empty()) return std::nullopt;
  const NodeId id = snapshot_lru_.begin()->second;
  if (nodes_[id].snapshot_step == step) return std::nullopt;
  snapshot_lru_.erase(snapshot_lru_.begin());
  return *std::exchange(nodes_[id].cached.snapshot, std::nullopt);
}

}  // namespace essor::coordinator
