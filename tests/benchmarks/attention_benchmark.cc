// Speed of paged attention, beside the limits of the machine measured between the very same rounds:
// prefill is compared with the peak of float multiply-adds, decode with DRAM reads of the keys and
// values it sees. Each call takes the next of several caches, as a step goes through its layers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/kv_type.h"
#include "kernels/attention.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/latent_attention.h"
#include "tests/benchmarks/machine_limits.h"

namespace essor::benchmarks {
namespace {

struct Options {
  uint32_t threads = 2;
  uint32_t rounds = 7;
  double round_seconds = 0.1;
  std::string filter;  // part of a case's name
  bool json = false;
};

struct Case {
  const char* name;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t sequences;
  uint32_t rows;     // of each sequence
  uint32_t context;  // tokens before them
  KvType type;
  // Latent attention where above 0: head_dim is then the latent's, and kv_heads 1.
  uint32_t rope_dim = 0;

  // Bytes of the cache for one token.
  size_t TokenBytes() const {
    return rope_dim > 0 ? LatentRowBytes(type, head_dim, rope_dim)
                        : 2 * kv_heads * KvVectorBytes(type, head_dim);
  }
};
constexpr KvType kF32 = KvType::kFloat32;
constexpr KvType kBf16 = KvType::kBFloat16;
constexpr KvType kFp8 = KvType::kFp8;
constexpr KvType kInt8 = KvType::kInt8;
constexpr Case kCases[] = {
    {"smollm2.prefill-512", 9, 3, 64, 1, 512, 0, kBf16},
    {"smollm2.prefill-512-f32", 9, 3, 64, 1, 512, 0, kF32},
    {"smollm2.prefill-512-fp8", 9, 3, 64, 1, 512, 0, kFp8},
    {"smollm2.prefill-512-int8", 9, 3, 64, 1, 512, 0, kInt8},
    {"smollm2.chunk-256-at-3840", 9, 3, 64, 1, 256, 3840, kBf16},
    {"qwen3-30b-a3b.prefill-512", 32, 4, 128, 1, 512, 0, kBf16},
    {"smollm2.decode-at-128", 9, 3, 64, 1, 1, 127, kBf16},
    {"smollm2.decode-at-1024", 9, 3, 64, 1, 1, 1023, kBf16},
    {"smollm2.decode-at-8192", 9, 3, 64, 1, 1, 8191, kBf16},
    {"smollm2.decode-at-8192-f32", 9, 3, 64, 1, 1, 8191, kF32},
    {"smollm2.decode-at-8192-fp8", 9, 3, 64, 1, 1, 8191, kFp8},
    {"smollm2.decode-at-8192-int8", 9, 3, 64, 1, 1, 8191, kInt8},
    {"smollm2.decode-16-at-1024", 9, 3, 64, 16, 1, 1023, kBf16},
    {"qwen3-30b-a3b.decode-at-8192", 32, 4, 128, 1, 1, 8191, kBf16},
    {"qwen3-30b-a3b.decode-at-8192-f32", 32, 4, 128, 1, 1, 8191, kF32},
    {"qwen3-30b-a3b.decode-at-8192-fp8", 32, 4, 128, 1, 1, 8191, kFp8},
    {"qwen3-30b-a3b.decode-at-8192-int8", 32, 4, 128, 1, 1, 8191, kInt8},
    {"deepseek-v3-tp8.chunk-64-at-960", 16, 1, 512, 1, 64, 960, kBf16, 64},
    {"deepseek-v3-tp8.decode-at-4096", 16, 1, 512, 1, 1, 4095, kBf16, 64},
    {"deepseek-v3-tp8.decode-at-4096-fp8", 16, 1, 512, 1, 1, 4095, kFp8, 64},
    {"deepseek-v3-tp8.decode-at-4096-int8", 16, 1, 512, 1, 1, 4095, kInt8, 64},
    {"deepseek-v3.decode-at-4096", 128, 1, 512, 1, 1, 4095, kBf16, 64},
};

constexpr uint32_t kBlockTokens = 16;
// All layers' caches together: several last-level caches, so that a layer is never found warm
// unless a step's caches would be.
constexpr size_t kWorkingSet = size_t{256} << 20;

class Workload {
 public:
  explicit Workload(const Case& shape) : shape_(shape) {
    const uint32_t tokens = shape.context + shape.rows;
    const uint32_t blocks_each = (tokens + kBlockTokens - 1) / kBlockTokens;
    num_blocks_ = blocks_each * shape.sequences;
    layer_bytes_ = size_t{num_blocks_} * kBlockTokens * shape.TokenBytes();
    num_layers_ = std::max<size_t>(1, kWorkingSet / layer_bytes_);
    memory_ = std::make_unique<BigBuffer>(num_layers_ * layer_bytes_);

    std::mt19937 engine(2);
    std::vector<uint32_t> blocks(num_blocks_);
    for (uint32_t i = 0; i < num_blocks_; ++i) blocks[i] = i;
    std::shuffle(blocks.begin(), blocks.end(), engine);
    block_table_ = blocks;
    for (uint32_t s = 0; s < shape.sequences; ++s) {
      sequences_.push_back({.first_row = s * shape.rows,
                            .num_rows = shape.rows,
                            .context_tokens = shape.context,
                            .block_table = block_table_.data() + size_t{s} * blocks_each});
    }
    FillCache();
    const size_t heads = size_t{shape.heads} * shape.rows * shape.sequences;
    q_.resize(heads * shape.head_dim);
    q_rope_.resize(heads * shape.rope_dim);
    y_.resize(q_.size());
    for (float& value : q_) value = (static_cast<float>(engine() % 2001) - 1000) / 1000;
    for (float& value : q_rope_) value = (static_cast<float>(engine() % 2001) - 1000) / 1000;
  }

  std::span<const std::byte> memory() const { return {memory_->data(), memory_->size()}; }

  // A multiply and an add for each dim of each visible key, and of each visible value.
  double Operations() const {
    const double first = shape_.context + 1.0;
    const double keys = shape_.rows * (first + (shape_.rows - 1) / 2.0);
    return shape_.sequences * keys * shape_.heads * (4.0 * shape_.head_dim + 2.0 * shape_.rope_dim);
  }

  // Of keys and values (or latents), each once.
  double Bytes() const {
    return static_cast<double>(layer_bytes_) * (shape_.context + shape_.rows) * shape_.sequences /
           (static_cast<double>(num_blocks_) * kBlockTokens);
  }

  void Run(kernels::CpuStream& stream) {
    std::byte* layer = memory_->data() + next_++ % num_layers_ * layer_bytes_;
    if (shape_.rope_dim > 0) return RunLatent(layer, stream);
    Attention({.cache = Kv(layer),
               .q = q_.data(),
               .q_stride = shape_.heads * shape_.head_dim,
               .num_heads = shape_.heads,
               .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
               .sliding_window = 0,
               .sequences = sequences_,
               .y = y_.data()},
              stream);
  }

 private:
  void RunLatent(std::byte* layer, kernels::CpuStream& stream) {
    LatentAttention({.cache = Latents(layer),
                     .q_latent = q_.data(),
                     .q_rope = q_rope_.data(),
                     .q_rope_row_stride = shape_.heads * shape_.rope_dim,
                     .q_rope_head_stride = shape_.rope_dim,
                     .num_heads = shape_.heads,
                     .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                     .sequences = sequences_,
                     .y = y_.data()},
                    stream);
  }

  // Keys and values of about -1 to 1 in the first layer, and copies of it in the others.
  void FillCache() {
    std::mt19937 engine(1);
    const uint32_t tokens = shape_.context + shape_.rows;
    std::vector<float> values(size_t{tokens} * shape_.kv_heads * shape_.head_dim);
    for (float& value : values) value = (static_cast<float>(engine() % 2001) - 1000) / 1000;
    const auto stream = kernels::CpuStream::Create({.threads = {.num_threads = 1}});
    for (kernels::SequenceRows sequence : sequences_) {
      sequence = {.first_row = 0,
                  .num_rows = tokens,
                  .context_tokens = 0,
                  .block_table = sequence.block_table};
      Write(values, sequence, *stream);
    }
    for (size_t layer = 1; layer < num_layers_; ++layer) {
      std::memcpy(memory_->data() + layer * layer_bytes_, memory_->data(), layer_bytes_);
    }
  }

  void Write(const std::vector<float>& values, const kernels::SequenceRows& sequence,
             kernels::Stream& stream) {
    if (shape_.rope_dim > 0) {
      kernels::WriteLatents({.cache = Latents(memory_->data()),
                             .latents = values.data(),
                             .rope_keys = values.data(),
                             .sequences = {&sequence, 1}},
                            stream);
      return;
    }
    const uint32_t width = shape_.kv_heads * shape_.head_dim;
    kernels::WriteKv({.cache = Kv(memory_->data()),
                      .k = values.data(),
                      .v = values.data(),
                      .k_stride = width,
                      .v_stride = width,
                      .sequences = {&sequence, 1}},
                     stream);
  }

  kernels::PagedKv Kv(std::byte* layer) const {
    return {.k = layer,
            .v = layer + layer_bytes_ / 2,
            .type = shape_.type,
            .num_blocks = num_blocks_,
            .block_tokens = kBlockTokens,
            .num_kv_heads = shape_.kv_heads,
            .head_dim = shape_.head_dim};
  }

  kernels::PagedLatents Latents(std::byte* layer) const {
    return {.data = layer,
            .type = shape_.type,
            .num_blocks = num_blocks_,
            .block_tokens = kBlockTokens,
            .latent_dim = shape_.head_dim,
            .rope_dim = shape_.rope_dim};
  }

  const Case shape_;
  uint32_t num_blocks_ = 0;
  size_t layer_bytes_ = 0;
  size_t num_layers_ = 0;
  std::unique_ptr<BigBuffer> memory_;
  std::vector<uint32_t> block_table_;
  std::vector<kernels::SequenceRows> sequences_;
  std::vector<float> q_;
  std::vector<float> q_rope_;  // of latent attention
  std::vector<float> y_;
  size_t next_ = 0;
};

struct Result {
  std::string name;
  Statistics microseconds;  // per call
  double bytes = 0;         // per call
  double operations = 0;    // per call
  Statistics read_limit;    // bytes per second
  Statistics peak;          // float operations per second
  // Of medians.
  double bytes_per_second() const { return bytes / microseconds.median * 1e6; }
  double operations_per_second() const { return operations / microseconds.median * 1e6; }
  double of_read() const { return bytes_per_second() / read_limit.median; }
  double of_peak() const { return peak.median > 0 ? operations_per_second() / peak.median : 0; }
};

Result Measure(const Case& shape, const Options& options, kernels::CpuStream& stream) {
  Workload workload(shape);
  workload.Run(stream);
  const double start = SecondsNow();
  workload.Run(stream);
  const double once = std::max(SecondsNow() - start, 1e-6);
  const auto calls = static_cast<uint32_t>(std::ceil(options.round_seconds / once));
  std::vector<double> microseconds;
  std::vector<double> read;
  std::vector<double> peak;
  for (uint32_t round = 0; round < options.rounds; ++round) {
    read.push_back(MeasureRead(stream.pool(), workload.memory()));
    peak.push_back(MeasurePeak(stream.pool(), ComputePeak::kFloatFma));
    const double begin = SecondsNow();
    for (uint32_t i = 0; i < calls; ++i) workload.Run(stream);
    microseconds.push_back((SecondsNow() - begin) / calls * 1e6);
  }
  return {.name = shape.name,
          .microseconds = StatisticsOf(std::move(microseconds)),
          .bytes = workload.Bytes(),
          .operations = workload.Operations(),
          .read_limit = StatisticsOf(std::move(read)),
          .peak = StatisticsOf(std::move(peak))};
}

void PrintText(const Result& r) {
  std::printf("%-32s %10.1f (%9.1f..%9.1f) %7.1f %6.1f %5.2f %8.1f %7.1f %5.2f\n", r.name.c_str(),
              r.microseconds.median, r.microseconds.min, r.microseconds.max,
              r.bytes_per_second() / 1e9, r.read_limit.median / 1e9, r.of_read(),
              r.operations_per_second() / 1e9, r.peak.median / 1e9, r.of_peak());
  std::fflush(stdout);
}

void PrintJson(const Result& r, bool first) {
  std::printf(
      "%s\n  {\"case\": \"%s\", \"us\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}, "
      "\"gb_per_s\": %.3f, \"read_gb_per_s\": %.3f, \"of_read\": %.4f, \"gflop_per_s\": %.2f, "
      "\"peak_gflop_per_s\": %.2f, \"of_peak\": %.4f}",
      first ? "" : ",", r.name.c_str(), r.microseconds.median, r.microseconds.min,
      r.microseconds.max, r.bytes_per_second() / 1e9, r.read_limit.median / 1e9, r.of_read(),
      r.operations_per_second() / 1e9, r.peak.median / 1e9, r.of_peak());
}

void RunAll(const Options& options) {
  std::vector<int> cpus;
  for (uint32_t i = 0; i < options.threads; ++i) cpus.push_back(static_cast<int>(i));
  const auto stream =
      kernels::CpuStream::Create({.threads = {.num_threads = options.threads, .cpus = cpus}});
  if (options.json) {
    std::printf("{\"threads\": %u, \"isa\": \"%s\", \"results\": [", options.threads,
                kernels::CpuIsaName(stream->isa()));
  } else {
    std::printf("isa %s, %u threads, median of %u rounds\n", kernels::CpuIsaName(stream->isa()),
                options.threads, options.rounds);
    std::printf("%-32s %10s (%9s..%9s) %7s %6s %5s %8s %7s %5s\n", "case", "us", "min", "max",
                "GB/s", "read", "ratio", "Gflop/s", "peak", "ratio");
  }
  bool first = true;
  for (const Case& shape : kCases) {
    if (std::string(shape.name).find(options.filter) == std::string::npos) continue;
    const Result result = Measure(shape, options, *stream);
    options.json ? PrintJson(result, first) : PrintText(result);
    first = false;
  }
  if (options.json) std::printf("\n]}\n");
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  essor::benchmarks::Options options;
  CLI::App app("Paged attention beside the limits of this machine");
  app.add_option("--threads", options.threads, "Threads, pinned to CPUs 0, 1, ...")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--rounds", options.rounds, "Rounds per case; the median is printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--round-seconds", options.round_seconds, "Length of a round")
      ->capture_default_str();
  app.add_option("--filter", options.filter, "Only cases whose name contains this");
  app.add_flag("--json", options.json, "Print JSON");
  CLI11_PARSE(app, argc, argv);
  essor::benchmarks::RunAll(options);
  return 0;
}
