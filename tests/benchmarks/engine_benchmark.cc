// One instance in one process, without coordinator: decode at batch 1 and at a larger batch (whose
// sequences are spread over the data-parallel groups) and prefill of 512 tokens, beside what the
// machine can do in the same minutes.
//
//   engine_benchmark --model DIR_OR_GGUF [--plan tp=2 --threads 1] [--batch 16] [--rounds 5]
//                    [--json]
//
// Floors: one decoded token reads the bytes of the active weights once (DRAM read bandwidth with as
// many threads); a prefill multiplies every active weight of the layers with every token (the int8,
// bf16 or fp32 dot-product peak).
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cpu/thread_pool.h"
#include "model/plan/memory_plan.h"
#include "model/plan/weight_slices.h"
#include "tests/benchmarks/machine_limits.h"
#include "tests/support/local_instance.h"
#include "worker/engine/cpu_share.h"

namespace essor::benchmarks {
namespace {

constexpr uint32_t kPrefillTokens = 512;
constexpr uint32_t kDecodeTokens = 32;
constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kShortPrompt = 16;
constexpr size_t kReadBytes = size_t{1} << 30;

struct Flags {
  std::string model;
  std::string plan = "tp=1";
  uint32_t threads = 2;  // per rank
  uint32_t batch = 16;
  uint32_t rounds = 5;
  bool json = false;
};

struct Work {
  double decode_bytes = 0;  // active packed weights of one token, head included
  double prefill_macs = 0;  // per token: active weights of the layers
  DType stored = DType::kBF16;
};

// Bytes and multiplications of one token. Experts count as the share that is chosen.
absl::StatusOr<Work> WorkOf(const std::string& path) {
  auto source = model::ModelSource::Open(path);
  if (!source.ok()) return source.status();
  const model::ModelSpec& spec = (*source)->spec;
  Work work{.stored = (*source)->stored};
  const auto layout = model::LayoutOf({}, spec, 0, 1);
  for (const auto& slice : model::SlicesOf(layout, spec, (*source)->bindings)) {
    double share = 1;
    if (slice.binding.expert >= 0) {
      const auto& moe =
          std::get<model::MoeFfn>(spec.layers[static_cast<size_t>(slice.binding.layer)].ffn);
      share = static_cast<double>(moe.top_k) / moe.num_experts;
    }
    const bool embedding = slice.binding.role == model::WeightRole::kEmbedding;
    if (embedding && !spec.tied_embeddings) continue;  // a look-up of one row
    const auto tensor = (*source)->checkpoint->Find(slice.binding.tensor);
    if (!tensor.ok()) return tensor.status();
    work.decode_bytes +=
        share * static_cast<double>(model::PackedBytes(slice, tensor->dtype, false));
    if (slice.binding.layer >= 0) {
      work.prefill_macs += share * static_cast<double>(slice.rows.size() * slice.cols.size());
    }
  }
  return work;
}

// Another text for each `seed`: sequences that say the same would meet in the same experts.
std::vector<TokenId> SomeTokens(uint32_t count, uint32_t vocab_size, uint32_t seed = 0) {
  std::vector<TokenId> tokens(count);
  uint32_t state = 12345 + seed;
  for (TokenId& token : tokens) token = (state = state * 1664525u + 1013904223u) % vocab_size;
  return tokens;
}

uint32_t SequencesOfGroup(const Flags& flags, const model::ParallelPlan& plan) {
  return (flags.batch + plan.dp - 1) / plan.dp;
}

// Of one step that extends `batch` sequences by a token each.
double BatchStepSeconds(testing::LocalInstance& instance, uint32_t batch, uint32_t dp,
                        uint32_t slots_per_group) {
  constexpr uint32_t kBlocks = (kShortPrompt + kDecodeTokens) / kBlockTokens + 1;
  const auto run = [&](const worker::StepInput& step) {
    const auto output = instance.Run(step);
    if (!output.ok()) std::fprintf(stderr, "%s\n", output.status().ToString().c_str());
  };
  worker::StepInput decode, release;
  for (uint32_t i = 0; i < batch; ++i) {
    const uint32_t slot = i % dp * slots_per_group + i / dp;
    worker::StepInput prefill;
    prefill.starts.push_back({.slot = slot, .sampling = {}});
    prefill.sequences.push_back(
        {.slot = slot, .tokens = SomeTokens(kShortPrompt, instance.spec().vocab_size, i)});
    std::vector<uint32_t> blocks;
    for (uint32_t block = 0; block < kBlocks; ++block) blocks.push_back(i / dp * kBlocks + block);
    instance.AddBlocks(blocks, &prefill.sequences[0]);
    run(prefill);
    decode.sequences.push_back({.slot = slot});
    release.release_slots.push_back(slot);
  }
  const double start = SecondsNow();
  for (uint32_t i = 0; i < kDecodeTokens; ++i) run(decode);
  const double seconds = (SecondsNow() - start) / kDecodeTokens;
  run(release);
  return seconds;
}

double DecodeSeconds(testing::LocalInstance& instance) {
  const auto prompt = SomeTokens(kShortPrompt, instance.spec().vocab_size);
  const auto run = [&](uint32_t count) {
    const double start = SecondsNow();
    const auto tokens = instance.Generate(prompt, count, {});
    if (!tokens.ok()) std::fprintf(stderr, "%s\n", tokens.status().ToString().c_str());
    return SecondsNow() - start;
  };
  const double prefill = run(1);
  return (run(1 + kDecodeTokens) - prefill) / kDecodeTokens;
}

double PrefillSeconds(testing::LocalInstance& instance) {
  const auto prompt = SomeTokens(kPrefillTokens, instance.spec().vocab_size);
  const double start = SecondsNow();
  const auto tokens = instance.Generate(prompt, 1, {});
  if (!tokens.ok()) std::fprintf(stderr, "%s\n", tokens.status().ToString().c_str());
  return SecondsNow() - start;
}

ComputePeak PeakOf(DType stored) {
  if (InfoOf(stored).block_elements > 1) return ComputePeak::kInt8Dot;
  return stored == DType::kF32 ? ComputePeak::kFloatFma : ComputePeak::kBFloat16Dot;
}

int Run(const Flags& flags) {
  const auto work = WorkOf(flags.model);
  const auto plan = model::ParallelPlan::Parse(flags.plan);
  if (!work.ok() || !plan.ok()) {
    std::fprintf(stderr, "%s\n", (work.ok() ? plan.status() : work.status()).ToString().c_str());
    return 1;
  }
  const uint32_t slots_per_group = SequencesOfGroup(flags, *plan);
  auto instance = testing::LocalInstance::Create({.model_path = flags.model,
                                                  .plan = flags.plan,
                                                  .limits = {.block_tokens = kBlockTokens,
                                                             .max_step_tokens = kPrefillTokens,
                                                             .max_sequences = slots_per_group,
                                                             .max_context_tokens = 1024},
                                                  .num_blocks = 64 + 4 * slots_per_group,
                                                  .threads_per_rank = flags.threads});
  if (!instance.ok()) {
    std::fprintf(stderr, "%s\n", instance.status().ToString().c_str());
    return 1;
  }
  const uint32_t num_threads = flags.threads * plan->NumRanks();
  const auto pool =
      kernels::ThreadPool::Create({.num_threads = num_threads, .cpus = worker::AllowedCpus()});
  BigBuffer memory(kReadBytes);
  std::vector<double> decode, decode_share, batch, prefill, prefill_share, reads;
  DecodeSeconds(**instance);  // warm-up
  for (uint32_t round = 0; round < flags.rounds; ++round) {
    const double read = MeasureRead(*pool, {memory.data(), memory.size()});
    const double token = DecodeSeconds(**instance);
    batch.push_back(flags.batch /
                    BatchStepSeconds(**instance, flags.batch, plan->dp, slots_per_group));
    const double peak = MeasurePeak(*pool, PeakOf(work->stored));
    const double prompt = PrefillSeconds(**instance);
    reads.push_back(read / 1e9);
    decode.push_back(1 / token);
    decode_share.push_back(work->decode_bytes / token / read);
    prefill.push_back(kPrefillTokens / prompt);
    prefill_share.push_back(2 * work->prefill_macs * kPrefillTokens / prompt / peak);
  }
  if (!flags.json) {
    std::printf("%s plan %s, %d threads a rank, %.1f MB a token\n", flags.model.c_str(),
                flags.plan.c_str(), flags.threads, work->decode_bytes / 1e6);
  }
  PrintStatistics("dram_read", "GB/s", reads, flags.json);
  PrintStatistics("decode_batch1", "tok/s", decode, flags.json);
  PrintStatistics("decode_of_dram_bound", "ratio", decode_share, flags.json);
  PrintStatistics(absl::StrCat("decode_batch", flags.batch).c_str(), "tok/s", batch, flags.json);
  PrintStatistics("prefill_512", "tok/s", prefill, flags.json);
  PrintStatistics("prefill_of_compute_peak", "ratio", prefill_share, flags.json);
  return 0;
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  CLI::App app{"Decode and prefill of one in-process instance, as shares of the machine's limits"};
  essor::benchmarks::Flags flags;
  app.add_option("--model", flags.model, "Hugging Face directory or .gguf")->required();
  app.add_option("--plan", flags.plan, "Parallel plan")->capture_default_str();
  app.add_option("--threads", flags.threads, "Threads per rank")->capture_default_str();
  app.add_option("--batch", flags.batch, "Sequences side by side, at least 1")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--rounds", flags.rounds, "Measured rounds")->capture_default_str();
  app.add_flag("--json", flags.json, "One JSON object per figure");
  CLI11_PARSE(app, argc, argv);
  return essor::benchmarks::Run(flags);
}
