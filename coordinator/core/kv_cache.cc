#include "coordinator/core/kv_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace essor::coordinator {
namespace {

// Nodes that hold no block of all positions are not bounded by those; this many per place that they
// do need keep the index small.
constexpr uint32_t kNodesPerPlace = 64;

uint32_t MaxNodes(const model::KvKinds& kinds, const model::KvCapacity& capacity) {
  if (kinds.full) return UINT32_MAX;
  return kNodesPerPlace * (1 + capacity.num_window_blocks + capacity.num_snapshots);
}

}  // namespace

KvCache::KvCache(const Options& options, const model::KvCapacity& capacity)
    : options_(options),
      max_nodes_(MaxNodes(options.kinds, capacity)),
      pool_(capacity.num_blocks),
      windows_(capacity.num_window_blocks),
      index_(options.block_tokens) {
  ESSOR_CHECK(options_.block_tokens >= 1);
  for (uint32_t i = capacity.num_snapshots; i > 0; --i) free_snapshots_.push_back(i - 1);
}

// The first block that the token at `position` reads in a windowed layer.
uint32_t KvCache::FirstWindowBlock(uint32_t position) const {
  const uint32_t window = options_.kinds.window_tokens;
  return position < window ? 0 : (position - window + 1) / options_.block_tokens;
}

// Window blocks that a sequence of `num_tokens` positions needs to go on by one token at a time.
uint32_t KvCache::WindowReserve(uint32_t num_tokens) const {
  if (options_.kinds.window_tokens == 0) return 0;
  const uint32_t in_sight =
      (options_.kinds.window_tokens + options_.block_tokens - 1) / options_.block_tokens + 1;
  return std::min(BlocksFor(num_tokens), in_sight);
}

bool KvCache::CanEverFit(uint32_t num_tokens) const {
  return (!options_.kinds.full || BlocksFor(num_tokens) <= pool_.num_blocks()) &&
         WindowReserve(num_tokens) <= windows_.num_blocks();
}

uint32_t KvCache::available() const {
  return pool_.num_free() + index_.num_evictable() - reserved_;
}

uint32_t KvCache::available_windows() const {
  return windows_.num_free() + index_.num_evictable_windows() - reserved_windows_;
}

bool KvCache::Usable(std::span<const PrefixIndex::NodeId> path, uint32_t depth, StepId step) const {
  if (depth == 0) return true;
  if (options_.kinds.states) {
    const PrefixIndex::NodeId last = path[depth - 1];
    if (!index_.Of(last).snapshot.has_value() || index_.SnapshotStep(last) >= step) return false;
  }
  if (options_.kinds.window_tokens == 0) return true;
  const uint32_t first = FirstWindowBlock(depth * options_.block_tokens);
  return std::all_of(path.begin() + first, path.begin() + depth, [this](PrefixIndex::NodeId node) {
    return index_.Of(node).window_block.has_value();
  });
}

KvCache::Match KvCache::FindMatch(PrefixIndex::NodeId root, const Begin& begin) const {
  Match match;
  const uint32_t block = options_.block_tokens;
  // The last token is always computed: the next one is chosen from its logits.
  const size_t limit = std::min<size_t>(begin.tokens.size() - 1, begin.max_shared_tokens) / block;
  PrefixIndex::NodeId node = root;
  while (match.path.size() < limit) {
    const auto next = index_.Find(node, begin.tokens.subspan(match.path.size() * block, block));
    if (!next.has_value()) break;
    node = *next;
    match.path.push_back(node);
  }
  match.depth = static_cast<uint32_t>(match.path.size());
  while (!Usable(match.path, match.depth, begin.step)) --match.depth;
  return match;
}

KvCache::Need KvCache::NeedOf(const Begin& begin, std::span<const PrefixIndex::NodeId> path,
                              uint32_t depth) const {
  Need need;
  const uint32_t first_window = FirstWindowBlock(depth * options_.block_tokens);
  if (options_.kinds.full) {
    const uint32_t total = BlocksFor(begin.reserve_tokens);
    need.blocks = total - std::min(total, depth);
  }
  need.windows = WindowReserve(begin.reserve_tokens);
  for (uint32_t i = 0; i < depth; ++i) {
    if (options_.kinds.full && !index_.IsHeld(path[i])) ++need.revived;
    const bool in_sight = options_.kinds.window_tokens > 0 && i >= first_window;
    if (in_sight && !index_.IsWindowHeld(path[i])) ++need.revived_windows;
  }
  return need;
}

bool KvCache::Available(const Need& need, const Spare& spare) const {
  return (!options_.kinds.full || available() + spare.blocks >= need.blocks + need.revived) &&
         available_windows() + spare.windows >= need.windows + need.revived_windows;
}

KvCache::Spare KvCache::SpareOf(const KvSequence& sequence) {
  return {
      .blocks = static_cast<uint32_t>(sequence.blocks.size()) + sequence.reserved,
      .windows = static_cast<uint32_t>(sequence.window_blocks.size()) + sequence.reserved_windows};
}

uint32_t KvCache::CachedTokens(const Begin& begin) const {
  if (!options_.prefix_cache) return 0;
  const std::optional<PrefixIndex::NodeId> root = index_.FindRoot(begin.salt);
  return root.has_value() ? FindMatch(*root, begin).depth * options_.block_tokens : 0;
}

bool KvCache::CanStart(const Begin& begin, const Spare& spare) const {
  const std::optional<PrefixIndex::NodeId> root =
      options_.prefix_cache ? index_.FindRoot(begin.salt) : std::nullopt;
  const Match match = root.has_value() ? FindMatch(*root, begin) : Match();
  return DepthThatFits(begin, match, spare).has_value();
}

// What is usable, or nothing where that does not fit: a sequence that shares window blocks needs
// those and as many more as one that does not.
std::optional<uint32_t> KvCache::DepthThatFits(const Begin& begin, const Match& match,
                                               const Spare& spare) const {
  if (Available(NeedOf(begin, match.path, match.depth), spare)) return match.depth;
  if (Available(NeedOf(begin, match.path, 0), spare)) return 0;
  return std::nullopt;
}

void KvCache::Share(const Begin& begin, std::span<const PrefixIndex::NodeId> path, uint32_t depth,
                    KvSequence* sequence) {
  const Need need = NeedOf(begin, path, depth);
  sequence->path.assign(path.begin(), path.begin() + depth);
  sequence->num_tokens = depth * options_.block_tokens;
  sequence->first_window_block =
      options_.kinds.window_tokens == 0 ? 0 : FirstWindowBlock(sequence->num_tokens);
  for (uint32_t i = 0; i < depth; ++i) {
    index_.Hold(path[i]);
    if (options_.kinds.full) sequence->blocks.push_back(*index_.Of(path[i]).block);
    if (options_.kinds.window_tokens == 0 || i < sequence->first_window_block) continue;
    index_.HoldWindow(path[i]);
    sequence->window_blocks.push_back(*index_.Of(path[i]).window_block);
  }
  sequence->reserved = need.blocks;
  sequence->reserved_windows = need.windows;
  reserved_ += need.blocks;
  reserved_windows_ += need.windows;
}

std::optional<KvCache::Found> KvCache::Start(const Begin& begin, KvSequence* sequence) {
  ESSOR_CHECK(!begin.tokens.empty());
  *sequence = KvSequence();
  const std::string salt =
      options_.prefix_cache ? begin.salt : absl::StrCat(begin.salt, "/", num_sequences_);
  sequence->root = index_.HoldRoot(salt);
  const Match match = FindMatch(sequence->root, begin);
  const std::optional<uint32_t> depth = DepthThatFits(begin, match, {});
  if (!depth.has_value()) {
    index_.Drop(sequence->root);
    return std::nullopt;
  }
  ++num_sequences_;
  Share(begin, match.path, *depth, sequence);
  Found found;
  found.context_tokens = sequence->num_tokens;
  if (options_.kinds.states) {
    found.branch_tokens = static_cast<uint32_t>(match.path.size()) * options_.block_tokens;
    if (*depth > 0) {
      index_.TouchSnapshot(match.path[*depth - 1]);
      found.snapshot = index_.Of(match.path[*depth - 1]).snapshot;
    }
  }
  return found;
}

std::optional<KvCache::Found> KvCache::Fork(const Begin& begin, const KvSequence& source,
                                            KvSequence* sequence) {
  const auto last = static_cast<uint32_t>(begin.tokens.size() - 1);
  const uint32_t depth = last / options_.block_tokens;
  ESSOR_CHECK(source.num_tokens > last);
  const bool windowed = options_.kinds.window_tokens > 0;
  // States cannot be had in the middle of a block, and what the source has given back is gone.
  const bool possible = !options_.kinds.states && source.path.size() >= depth &&
                        (!windowed || source.first_window_block <= FirstWindowBlock(last));
  *sequence = KvSequence();
  const std::span<const PrefixIndex::NodeId> path(source.path.data(), possible ? depth : 0);
  if (!possible || !Usable(path, depth, begin.step) || last % options_.block_tokens == 0) {
    return std::nullopt;
  }
  if (!Available(NeedOf(begin, path, depth), {})) return std::nullopt;
  sequence->root = source.root;
  index_.Hold(source.root);
  Share(begin, path, depth, sequence);
  Found found;
  std::vector<BlockId> block;
  std::vector<BlockId> window;
  Extend(sequence, last - sequence->num_tokens, &block, &window);
  if (!block.empty()) found.copies.push_back({source.blocks[depth], block[0], false});
  if (!window.empty()) {
    const BlockId from = source.window_blocks[depth - source.first_window_block];
    found.copies.push_back({from, window[0], true});
  }
  found.context_tokens = last;
  return found;
}

void KvCache::DropWindowBlock(KvSequence* sequence, uint32_t index) {
  const BlockId block = sequence->window_blocks[index - sequence->first_window_block];
  const bool shared =
      index < sequence->path.size() && index_.Of(sequence->path[index]).window_block == block;
  if (shared) {
    index_.DropWindow(sequence->path[index]);
  } else {
    windows_.Give(block);
  }
}

void KvCache::ReleaseBehind(KvSequence* sequence) {
  if (options_.kinds.window_tokens == 0) return;
  const uint32_t first = FirstWindowBlock(sequence->num_tokens);
  if (first <= sequence->first_window_block) return;
  const uint32_t end = std::min(
      first, sequence->first_window_block + static_cast<uint32_t>(sequence->window_blocks.size()));
  const uint32_t count = end - sequence->first_window_block;
  for (uint32_t i = 0; i < count; ++i) {
    DropWindowBlock(sequence, sequence->first_window_block + i);
  }
  sequence->window_blocks.erase(sequence->window_blocks.begin(),
                                sequence->window_blocks.begin() + count);
  sequence->first_window_block = end;
  // What came back is promised to the sequence again, up to what it needs.
  const auto held = static_cast<uint32_t>(sequence->window_blocks.size());
  const uint32_t most = WindowReserve(UINT32_MAX - options_.block_tokens);
  const uint32_t wanted = most - std::min(most, held);
  if (sequence->reserved_windows >= wanted) return;
  const uint32_t more =
      std::min(wanted - sequence->reserved_windows, std::min(count, available_windows()));
  sequence->reserved_windows += more;
  reserved_windows_ += more;
}

uint32_t KvCache::RoomFor(const KvSequence& sequence, uint32_t wanted) const {
  const uint32_t block = options_.block_tokens;
  const uint64_t left_in_block = (block - sequence.num_tokens % block) % block;
  uint64_t room = wanted;
  if (options_.kinds.full) {
    room = std::min(room, left_in_block + uint64_t{sequence.reserved + available()} * block);
  }
  if (options_.kinds.window_tokens > 0) {
    room = std::min(
        room, left_in_block + uint64_t{sequence.reserved_windows + available_windows()} * block);
  }
  return static_cast<uint32_t>(room);
}

void KvCache::GiveBack(const CachedBlock& cached) {
  if (cached.block.has_value()) pool_.Give(*cached.block);
  if (cached.window_block.has_value()) windows_.Give(*cached.window_block);
  if (cached.snapshot.has_value()) free_snapshots_.push_back(*cached.snapshot);
}

void KvCache::EvictLeaf() {
  const std::optional<CachedBlock> cached = index_.EvictLeaf();
  ESSOR_CHECK(cached.has_value());
  GiveBack(*cached);
}

BlockId KvCache::Take(KvSequence* sequence) {
  if (sequence->reserved > 0) {
    --sequence->reserved;
    --reserved_;
  }
  if (pool_.num_free() == 0) EvictLeaf();
  return pool_.Take();
}

BlockId KvCache::TakeWindow(KvSequence* sequence) {
  if (sequence->reserved_windows > 0) {
    --sequence->reserved_windows;
    --reserved_windows_;
  }
  if (windows_.num_free() > 0) return windows_.Take();
  const std::optional<BlockId> block = index_.EvictWindowBlock();
  ESSOR_CHECK(block.has_value());
  return *block;
}

void KvCache::Extend(KvSequence* sequence, uint32_t count, std::vector<BlockId>* new_blocks,
                     std::vector<BlockId>* new_window_blocks) {
  const uint32_t before = BlocksFor(sequence->num_tokens);
  sequence->num_tokens += count;
  const uint32_t after = BlocksFor(sequence->num_tokens);
  for (uint32_t i = before; i < after; ++i) {
    if (options_.kinds.full) {
      sequence->blocks.push_back(Take(sequence));
      new_blocks->push_back(sequence->blocks.back());
    }
    if (options_.kinds.window_tokens > 0) {
      sequence->window_blocks.push_back(TakeWindow(sequence));
      new_window_blocks->push_back(sequence->window_blocks.back());
    }
  }
}

void KvCache::Publish(KvSequence* sequence, std::span<const TokenId> tokens) {
  const uint32_t block = options_.block_tokens;
  const size_t complete = std::min<size_t>(tokens.size(), sequence->num_tokens) / block;
  while (sequence->path.size() < complete) {
    const auto index = static_cast<uint32_t>(sequence->path.size());
    const PrefixIndex::NodeId parent = index == 0 ? sequence->root : sequence->path.back();
    const auto part = tokens.subspan(size_t{index} * block, block);
    std::optional<BlockId> window;
    if (options_.kinds.window_tokens > 0 && index >= sequence->first_window_block) {
      window = sequence->window_blocks[index - sequence->first_window_block];
    }
    std::optional<PrefixIndex::NodeId> node = index_.Find(parent, part);
    if (node.has_value()) {
      Adopt(*node, sequence, index, window);
    } else {
      CachedBlock cached{.window_block = window};
      if (options_.kinds.full) cached.block = sequence->blocks[index];
      node = index_.Insert(parent, part, cached);
      if (!node.has_value()) return;
    }
    sequence->path.push_back(*node);
  }
  LimitNodes();
}

// A block was computed twice. Where nobody holds the cached one it is replaced, so that holding the
// node takes no memory from anyone; else the sequence keeps its own to itself.
void KvCache::Adopt(PrefixIndex::NodeId node, KvSequence* sequence, uint32_t index,
                    std::optional<BlockId> window) {
  if (options_.kinds.full && !index_.IsHeld(node)) {
    pool_.Give(index_.ReplaceBlock(node, sequence->blocks[index]));
  }
  index_.Hold(node);
  if (!window.has_value() || index_.IsWindowHeld(node)) return;
  const std::optional<BlockId> old = index_.ReplaceWindowBlock(node, *window);
  if (old.has_value()) windows_.Give(*old);
}

void KvCache::LimitNodes() {
  while (index_.num_nodes() > max_nodes_) {
    const std::optional<CachedBlock> cached = index_.EvictLeaf();
    if (!cached.has_value()) return;
    GiveBack(*cached);
  }
}

std::optional<uint32_t> KvCache::PlaceSnapshot(KvSequence* sequence, StepId step) {
  const uint32_t depth = sequence->num_tokens / options_.block_tokens;
  if (!options_.prefix_cache || depth == 0 || sequence->path.size() < depth ||
      depth * options_.block_tokens != sequence->num_tokens) {
    return std::nullopt;
  }
  const PrefixIndex::NodeId node = sequence->path[depth - 1];
  if (index_.Of(node).snapshot.has_value()) return std::nullopt;
  std::optional<uint32_t> place;
  if (free_snapshots_.empty()) {
    place = index_.EvictSnapshot(step);
  } else {
    place = free_snapshots_.back();
    free_snapshots_.pop_back();
  }
  if (place.has_value()) index_.SetSnapshot(node, *place, step);
  return place;
}

void KvCache::Hide(const KvSequence& sequence) {
  for (const PrefixIndex::NodeId node : sequence.path) index_.Hide(node);
}

void KvCache::End(KvSequence* sequence) {
  const auto num_blocks = static_cast<uint32_t>(sequence->blocks.size());
  for (uint32_t i = 0; i < num_blocks; ++i) {
    const bool shared =
        i < sequence->path.size() && index_.Of(sequence->path[i]).block == sequence->blocks[i];
    if (!shared) pool_.Give(sequence->blocks[i]);
  }
  for (uint32_t i = 0; i < sequence->window_blocks.size(); ++i) {
    DropWindowBlock(sequence, sequence->first_window_block + i);
  }
  // Leaves first: they are the first to be evicted.
  for (auto node = sequence->path.rbegin(); node != sequence->path.rend(); ++node) {
    index_.Drop(*node);
  }
  index_.Drop(sequence->root);
  reserved_ -= sequence->reserved;
  reserved_windows_ -= sequence->reserved_windows;
  *sequence = KvSequence();
  if (options_.prefix_cache) return;
  while (const std::optional<CachedBlock> cached = index_.EvictLeaf()) GiveBack(*cached);
}

}  // namespace essor::coordinator
