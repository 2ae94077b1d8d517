// What this machine can do at most, measured in the same run as the benchmark that is compared with
// it: machines differ by factors, and DRAM bandwidth moves within minutes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace essor::benchmarks {

// Anonymous memory in huge pages where the system has them, as the engine's weights are. Touched.
class BigBuffer {
 public:
  explicit BigBuffer(size_t bytes);
  ~BigBuffer();
  BigBuffer(const BigBuffer&) = delete;
  BigBuffer& operator=(const BigBuffer&) = delete;
  std::byte* data() { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_;
  size_t size_;
};

double SecondsNow();  // steady

// Reads all of `memory` once, split evenly over the pool; bytes per second. Cold only if `memory`
// is several times the last-level cache, or other memory was read in between.
double MeasureRead(kernels::ThreadPool& pool, std::span<const std::byte> memory);

// Operations per second of all members, a multiply and an add each one, of independent
// register-only instruction chains; 0 where the processor lacks the instruction.
enum class ComputePeak { kFloatFma, kBFloat16Dot, kInt8Dot };
double MeasurePeak(kernels::ThreadPool& pool, ComputePeak peak);

struct Statistics {
  double median = 0;
  double min = 0;
  double max = 0;
};
Statistics StatisticsOf(std::vector<double> samples);
// To stdout, as a row or as a JSON object on a line of its own.
void PrintStatistics(const std::string& name, const std::string& unit, std::vector<double> samples,
                     bool json);

}  // namespace essor::benchmarks
