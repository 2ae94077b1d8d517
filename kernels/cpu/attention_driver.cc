#include "kernels/cpu/attention_driver.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "kernels/cpu/cpu_stream.h"

namespace essor::kernels {
namespace {

// Below this many whole tasks per thread, one-row tasks are split by partition as well.
constexpr uint32_t kTasksPerThread = 4;

// Floats of the states that such parts may keep, 64 MB: a long context has hundreds of partitions,
// and each keeps a result for every head. The first row may always be split.
constexpr uint64_t kSplitFloats = 16 << 20;

// A task whose partitions are computed apart: `states` holds one set of states for each.
struct SplitTask {
  AttentionTask task;
  float* states;
};

// What one call does, and in which memory.
struct AttentionJob {
  const AttentionCall& call;
  uint32_t group;  // heads per KV head
  uint32_t rows_per_task;
  uint32_t queries_per_task;
  uint64_t num_tasks = 0;  // parts of split ones included
  uint64_t num_splits = 0;
  uint64_t num_state_sets = 0;  // of one row each
  bool may_split = false;
  // About 0.4 us each on one thread: a tile loaded and six queries taken through it.
  uint64_t cost = 0;
  AttentionTask* tasks = nullptr;
  float** task_states = nullptr;  // where a part of a split task goes; null for a whole task
  SplitTask* splits = nullptr;
  float* states = nullptr;
  float* scratch = nullptr;  // [threads, scratch_floats]
  size_t scratch_floats = 0;
};

uint64_t NumChunks(const AttentionJob& job, const SequenceRows& sequence) {
  return (uint64_t{sequence.num_rows} + job.rows_per_task - 1) / job.rows_per_task;
}

AttentionTask ChunkTask(const AttentionJob& job, const SequenceRows& sequence, uint64_t chunk) {
  const auto begin = static_cast<uint32_t>(chunk * job.rows_per_task);
  const uint32_t end = std::min(sequence.num_rows, begin + job.rows_per_task);
  const uint32_t first_key = VisibleKeys(job.call, sequence, begin).begin;
  const uint32_t last_key = VisibleKeys(job.call, sequence, end - 1).end - 1;
  return {.sequence = &sequence,
          .kv_head = 0,
          .row_begin = begin,
          .row_end = end,
          .partition_begin = first_key / kKvPartition,
          .partition_end = last_key / kKvPartition + 1};
}

bool IsSplittable(const AttentionTask& task) {
  return task.row_end - task.row_begin == 1 && task.partition_end - task.partition_begin > 1;
}

// Sets of states that kSplitFloats hold.
uint64_t StateSetsMax(const AttentionJob& job) {
  return kSplitFloats / SoftmaxStateFloats(job.group, job.call.value_dim);
}

// Calls body(task, split) for each chunk of each sequence, for KV head 0; `split` says whether its
// partitions are computed apart.
template <typename Body>
void ForEachChunk(const AttentionJob& job, const Body& body) {
  uint64_t state_sets = 0;
  for (const SequenceRows& sequence : job.call.sequences) {
    for (uint64_t chunk = 0; chunk < NumChunks(job, sequence); ++chunk) {
      const AttentionTask task = ChunkTask(job, sequence, chunk);
      const uint64_t sets =
          uint64_t{task.partition_end - task.partition_begin} * job.call.num_kv_heads;
      const bool split = job.may_split && IsSplittable(task) &&
                         (state_sets == 0 || state_sets + sets <= StateSetsMax(job));
      if (split) state_sets += sets;
      body(task, split);
    }
  }
}

AttentionJob MakeJob(const AttentionCall& call) {
  const uint32_t group = call.num_heads / call.num_kv_heads;
  const uint32_t rows_per_task = std::max(1u, kQueriesPerTask / group);
  return {.call = call,
          .group = group,
          .rows_per_task = rows_per_task,
          .queries_per_task = rows_per_task * group};
}

void CountTasks(AttentionJob& job, uint32_t num_threads) {
  const AttentionCall& call = job.call;
  const uint64_t num_kv_heads = call.num_kv_heads;
  uint64_t whole_tasks = 0;
  for (const SequenceRows& sequence : call.sequences) {
    whole_tasks += NumChunks(job, sequence) * num_kv_heads;
  }
  job.may_split = num_threads > 1 && whole_tasks < uint64_t{kTasksPerThread} * num_threads;
  ForEachChunk(job, [&](const AttentionTask& task, bool split) {
    const uint64_t partitions = task.partition_end - task.partition_begin;
    const uint64_t queries = uint64_t{task.row_end - task.row_begin} * job.group;
    const uint64_t tiles = VisibleKeys(call, *task.sequence, task.row_end - 1).end / kKvTile + 1;
    job.cost +=
        num_kv_heads * std::min(tiles, partitions * (kKvPartition / kKvTile)) * (queries / 6 + 1);
    if (split) {
      job.num_tasks += partitions * num_kv_heads;
      job.num_state_sets += partitions * num_kv_heads;
      job.num_splits += num_kv_heads;
    } else {
      job.num_tasks += num_kv_heads;
    }
  });
}

// Hands out arrays one behind the other; without memory it only counts their bytes.
class Layout {
 public:
  explicit Layout(std::byte* memory) : memory_(memory) {}

  template <typename T>
  T* Take(uint64_t count) {
    const size_t at = bytes_;
    bytes_ += (count * sizeof(T) + 63) / 64 * 64;
    return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + at);
  }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* const memory_;
  size_t bytes_ = 0;
};

// Points the job's arrays into `memory`, or with null only counts. Returns their bytes.
size_t LayOut(AttentionJob& job, uint32_t num_threads, std::byte* memory) {
  const uint32_t dim = job.call.value_dim;
  // The scratch of `attend` and the states it merges into.
  job.scratch_floats = (AttentionScratchFloats(job.queries_per_task, job.call.key_dim, dim) +
                        SoftmaxStateFloats(job.queries_per_task, dim) + 15) /
                       16 * 16;
  Layout layout(memory);
  job.tasks = layout.Take<AttentionTask>(job.num_tasks);
  job.task_states = layout.Take<float*>(job.num_tasks);
  job.splits = layout.Take<SplitTask>(job.num_splits);
  job.states = layout.Take<float>(job.num_state_sets * SoftmaxStateFloats(job.group, dim));
  job.scratch = layout.Take<float>(num_threads * job.scratch_floats);
  return layout.bytes();
}

void FillTasks(AttentionJob& job) {
  const size_t set_floats = SoftmaxStateFloats(job.group, job.call.value_dim);
  uint64_t num_tasks = 0;
  uint64_t num_splits = 0;
  float* states = job.states;
  ForEachChunk(job, [&](AttentionTask task, bool split) {
    for (task.kv_head = 0; task.kv_head < job.call.num_kv_heads; ++task.kv_head) {
      if (!split) {
        job.task_states[num_tasks] = nullptr;
        job.tasks[num_tasks++] = task;
        continue;
      }
      job.splits[num_splits++] = {task, states};
      AttentionTask part = task;
      for (uint32_t p = task.partition_begin; p < task.partition_end; ++p) {
        part.partition_begin = p;
        part.partition_end = p + 1;
        job.task_states[num_tasks] = states;
        job.tasks[num_tasks++] = part;
        states += set_floats;
      }
    }
  });
  ESSOR_CHECK(num_tasks == job.num_tasks && num_splits == job.num_splits);
}

void RunTask(const AttentionJob& job, const AttentionKernels& kernels, uint64_t index,
             float* scratch) {
  const AttentionTask& task = job.tasks[index];
  const uint32_t dim = job.call.value_dim;
  const uint32_t queries = (task.row_end - task.row_begin) * job.group;
  float* part_states = job.task_states[index];
  const SoftmaxStates states = SoftmaxStatesAt(
      part_states != nullptr
          ? part_states
          : scratch + AttentionScratchFloats(job.queries_per_task, job.call.key_dim, dim),
      queries);
  kernels.clear(states, queries, dim);
  kernels.attend(job.call, task, scratch, states);
  if (part_states == nullptr) kernels.finish(job.call, task, states);
}

// Merges in the same order, with the same operations, as a whole task does.
void MergeSplit(const AttentionJob& job, const AttentionKernels& kernels, const SplitTask& split,
                float* scratch) {
  const uint32_t dim = job.call.value_dim;
  const SoftmaxStates total = SoftmaxStatesAt(scratch, job.group);
  kernels.clear(total, job.group, dim);
  float* states = split.states;
  for (uint32_t p = split.task.partition_begin; p < split.task.partition_end; ++p) {
    kernels.merge(total, SoftmaxStatesAt(states, job.group), job.group, dim);
    states += SoftmaxStateFloats(job.group, dim);
  }
  kernels.finish(job.call, split.task, total);
}

void RunJob(const AttentionJob& job, const AttentionKernels& kernels, ThreadPool& pool, bool fork) {
  std::atomic<uint64_t> next{0};
  const auto work = [&](uint32_t thread) {
    float* scratch = job.scratch + thread * job.scratch_floats;
    // The last first: later chunks of a prompt see more keys, and the longest are best begun first.
    for (uint64_t i = next.fetch_add(1, std::memory_order_relaxed); i < job.num_tasks;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      RunTask(job, kernels, job.num_tasks - 1 - i, scratch);
    }
  };
  if (fork) {
    pool.Run(work);
  } else {
    work(0);
  }
  for (uint64_t i = 0; i < job.num_splits; ++i)
    MergeSplit(job, kernels, job.splits[i], job.scratch);
}

}  // namespace

const AttentionKernels& AttentionKernelsFor(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return Avx512AttentionKernels();
  if (isa == CpuIsa::kAvx2) return Avx2AttentionKernels();
#endif
  ESSOR_CHECK(isa != CpuIsa::kReference);
  return PortableAttentionKernels();
}

void RunAttention(const AttentionCall& call, CpuStream& cpu) {
  ESSOR_CHECK(call.num_kv_heads > 0 && call.num_heads % call.num_kv_heads == 0);
  const uint32_t num_threads = cpu.pool().num_threads();
  AttentionJob job = MakeJob(call);
  CountTasks(job, num_threads);
  if (job.num_tasks == 0) return;
  LayOut(job, num_threads, cpu.Workspace(LayOut(job, num_threads, nullptr)));
  FillTasks(job);
  // From some 3 us of work on, against 1 us for a fork and a join.
  constexpr uint64_t kCostForFork = 8;
  RunJob(job, AttentionKernelsFor(cpu.isa()), cpu.pool(),
         num_threads > 1 && job.cost >= kCostForFork);
}

size_t AttentionWorkspaceBytes(const AttentionLimits& limits, uint32_t num_threads) {
  AttentionCall call{};
  call.num_heads = limits.num_heads;
  call.num_kv_heads = limits.num_kv_heads;
  call.key_dim = limits.key_dim;
  call.value_dim = limits.value_dim;
  AttentionJob job = MakeJob(call);
  // Each sequence has at most one task that is not full, for each KV head.
  job.num_tasks =
      (uint64_t{limits.max_rows} / job.rows_per_task + limits.max_sequences) * limits.num_kv_heads;
  if (num_threads > 1) {
    job.num_splits = std::min<uint64_t>(job.num_tasks, uint64_t{kTasksPerThread} * num_threads);
    const uint64_t partitions = uint64_t{limits.max_positions} / kKvPartition + 1;
    job.num_state_sets = std::min(job.num_splits * partitions,
                                  std::max(StateSetsMax(job), partitions * limits.num_kv_heads));
    job.num_tasks += job.num_state_sets;
  }
  return LayOut(job, num_threads, nullptr);
}

}  // namespace essor::kernels
