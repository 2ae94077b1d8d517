#include "tests/benchmarks/machine_limits.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace essor::benchmarks {
namespace {

using kernels::CpuIsa;

// Keeps a result alive.
void Consume(uint64_t value) { asm volatile("" ::"r"(value) : "memory"); }

// Instructions per chain and measurement: about 20 ms.
constexpr uint64_t kSteps = 8'000'000;

#if defined(__x86_64__)

#define ESSOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,avx512vnni")))
#define ESSOR_AVX2 __attribute__((target("avx2,fma")))

// Twelve independent chains hide the latency of two such instructions a cycle.
constexpr int kChains = 12;

ESSOR_AVX512 uint64_t ReadAvx512(const std::byte* from, size_t bytes) {
  __m512i sum[4] = {};
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 4; ++j) {
      sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(from + i + 64 * j));
    }
  }
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, all);
  return words[0] ^ words[7];
}

ESSOR_AVX512 uint64_t FmaAvx512() {
  const __m512 factor = _mm512_set1_ps(0.5f);
  __m512 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  for (uint64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], factor, factor);
  }
  float total = 0;
  for (const __m512& value : sum) total += _mm512_cvtss_f32(value);
  return static_cast<uint64_t>(total);
}

ESSOR_AVX512 uint64_t DotBF16Avx512() {
  const __m512bh factor = (__m512bh)_mm512_set1_epi16(0x3f80);
  __m512 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  for (uint64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], factor, factor);
  }
  float total = 0;
  for (const __m512& value : sum) total += _mm512_cvtss_f32(value);
  return static_cast<uint64_t>(total);
}

ESSOR_AVX512 uint64_t DotInt8Avx512() {
  const __m512i factor = _mm512_set1_epi8(1);
  __m512i sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_epi32(i);
  for (uint64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], factor, factor);
  }
  uint64_t total = 0;
  for (const __m512i& value : sum) {
    total += static_cast<uint64_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(value)));
  }
  return total;
}

ESSOR_AVX2 uint64_t FmaAvx2() {
  const __m256 factor = _mm256_set1_ps(0.5f);
  __m256 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  for (uint64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], factor, factor);
  }
  float total = 0;
  for (const __m256& value : sum) total += _mm256_cvtss_f32(value);
  return static_cast<uint64_t>(total);
}

struct PeakLoop {
  uint64_t (*run)();
  double operations_per_step;  // of all chains
};

PeakLoop LoopOf(ComputePeak peak) {
  const CpuIsa best = kernels::BestCpuIsa();
  if (best == CpuIsa::kAvx512) {
    if (peak == ComputePeak::kFloatFma) return {FmaAvx512, kChains * 32.0};
    if (peak == ComputePeak::kBFloat16Dot) return {DotBF16Avx512, kChains * 64.0};
    return {DotInt8Avx512, kChains * 128.0};
  }
  if (best == CpuIsa::kAvx2 && peak == ComputePeak::kFloatFma) return {FmaAvx2, kChains * 16.0};
  return {nullptr, 0};
}

uint64_t ReadAll(const std::byte* from, size_t bytes) {
  if (kernels::BestCpuIsa() == CpuIsa::kAvx512) return ReadAvx512(from, bytes);
  uint64_t sum = 0;
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, from + i, sizeof(word));
    sum ^= word;
  }
  return sum;
}

#else

struct PeakLoop {
  uint64_t (*run)();
  double operations_per_step;
};
PeakLoop LoopOf(ComputePeak /*peak*/) { return {nullptr, 0}; }

uint64_t ReadAll(const std::byte* from, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, from + i, sizeof(word));
    sum ^= word;
  }
  return sum;
}

#endif

}  // namespace

BigBuffer::BigBuffer(size_t bytes) : size_(bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    std::fprintf(stderr, "cannot allocate %zu bytes\n", bytes);
    std::exit(1);
  }
  madvise(data, bytes, MADV_HUGEPAGE);
  std::memset(data, 1, bytes);
  data_ = static_cast<std::byte*>(data);
}

BigBuffer::~BigBuffer() { munmap(data_, size_); }

double SecondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double MeasureRead(kernels::ThreadPool& pool, std::span<const std::byte> memory) {
  const double start = SecondsNow();
  pool.Run([&](uint32_t thread) {
    const kernels::IndexRange range =
        kernels::SplitRange(memory.size(), pool.num_threads(), thread, 256);
    Consume(ReadAll(memory.data() + range.begin, range.end - range.begin));
  });
  return static_cast<double>(memory.size()) / (SecondsNow() - start);
}

double MeasurePeak(kernels::ThreadPool& pool, ComputePeak peak) {
  const PeakLoop loop = LoopOf(peak);
  if (loop.run == nullptr) return 0;
  const double start = SecondsNow();
  pool.Run([&](uint32_t /*thread*/) { Consume(loop.run()); });
  return pool.num_threads() * loop.operations_per_step * static_cast<double>(kSteps) /
         (SecondsNow() - start);
}

Statistics StatisticsOf(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  return {.median = samples[samples.size() / 2], .min = samples.front(), .max = samples.back()};
}

void PrintStatistics(const std::string& name, const std::string& unit, std::vector<double> samples,
                     bool json) {
  const Statistics s = StatisticsOf(std::move(samples));
  std::printf(json ? "{\"name\":\"%s\",\"unit\":\"%s\",\"median\":%.4g,\"min\":%.4g,\"max\":%.4g}\n"
                   : "%-28s %-8s median %-10.4g min %-10.4g max %.4g\n",
              name.c_str(), unit.c_str(), s.median, s.min, s.max);
}

}  // namespace essor::benchmarks
