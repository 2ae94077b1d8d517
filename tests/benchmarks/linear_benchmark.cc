// Speed of packed matrix products, beside the limits of the machine measured between the very same
// rounds. Decode (1 row) is compared with DRAM reads, prefill with the peak of its instruction.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/float16.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/linear.h"
#include "tests/benchmarks/machine_limits.h"

namespace essor::benchmarks {
namespace {

using kernels::GatedFfnWeights;
using kernels::PackedMatrix;
using kernels::WeightFormat;

struct Options {
  uint32_t threads = 2;
  uint32_t rounds = 7;
  double round_seconds = 0.1;
  std::string filter;  // part of a case's name
  std::string isa;
  std::vector<uint32_t> rows = {1, 512};
  bool json = false;
};

struct Format {
  const char* name;
  WeightFormat format;
  ComputePeak peak;
};
constexpr Format kFormats[] = {{"bf16", WeightFormat::kBF16, ComputePeak::kBFloat16Dot},
                               {"fp8", WeightFormat::kFp8, ComputePeak::kBFloat16Dot},
                               {"fp4", WeightFormat::kFp4, ComputePeak::kBFloat16Dot},
                               {"q8", WeightFormat::kQ8, ComputePeak::kInt8Dot},
                               {"q4", WeightFormat::kQ4, ComputePeak::kInt8Dot},
                               {"f32", WeightFormat::kF32, ComputePeak::kFloatFma}};

// One op of a layer. num_experts = 0: a plain product with `outputs` rows.
struct Case {
  const char* name;
  uint32_t inputs;
  uint32_t outputs;  // of a plain product; the intermediate size of an FFN
  uint32_t num_experts;
  uint32_t top_k;
};
constexpr Case kCases[] = {
    {"smollm2-moe.qkv", 576, 960, 0, 0},      {"smollm2-moe.ffn", 576, 1536, 8, 2},
    {"smollm2-moe.head", 576, 49152, 0, 0},   {"qwen3-30b-a3b.q", 2048, 4096, 0, 0},
    {"qwen3-30b-a3b.ffn", 2048, 768, 128, 8}, {"dense-8192", 8192, 8192, 0, 0},
};

// Weights as large as several last-level caches, so that the next call never finds its own warm.
constexpr size_t kWorkingSet = size_t{512} << 20;

// Packs one group of 64 rows of small random weights and copies it all over the matrix.
void FillMatrix(const PackedMatrix& matrix, std::byte* destination) {
  constexpr uint32_t kGroup = kernels::kPackRowGroup;
  std::mt19937 engine(1);
  const uint32_t k = matrix.k;
  const size_t count = size_t{kGroup} * k;
  const kernels::PackTarget target{
      .destination = destination, .n = kGroup, .k = k, .first_row = 0, .num_rows = kGroup};
  std::vector<float> floats(count);
  for (float& value : floats) value = (static_cast<float>(engine() % 2001) - 1000) / 30000;
  std::vector<uint16_t> halves(count);
  std::transform(floats.begin(), floats.end(), halves.begin(), [&](float value) {
    return matrix.format == WeightFormat::kBF16 ? ToBFloat16(value).bits : ToFloat16(value).bits;
  });
  std::vector<int8_t> values(count);
  for (int8_t& value : values) value = static_cast<int8_t>(engine() % 16);
  const kernels::QuantRows quantised{.values = values,
                                     .scales = std::span(halves).first(count / 32),
                                     .minima = std::span(halves).first(count / 32)};
  switch (matrix.format) {
    case WeightFormat::kF32:
      PackF32(floats, k, target);
      break;
    case WeightFormat::kBF16:
      PackBF16(halves, k, target);
      break;
    case WeightFormat::kQ8:
      PackQ8({.values = values, .scales = quantised.scales, .minima = {}}, k, target);
      break;
    case WeightFormat::kQ4:
      PackQ4(quantised, k, target);
      break;
    case WeightFormat::kFp4:
    case WeightFormat::kInt4: {
      std::vector<uint8_t> codes(count / 2);
      for (uint8_t& code : codes) code = static_cast<uint8_t>(engine());
      const std::vector<uint16_t> scales(count / 32, 0x3c00);  // 1/128
      PackNibbles(matrix.format, {.codes = codes, .scales = scales}, k, target);
      break;
    }
    case WeightFormat::kFp8: {
      // Small values as e4m3: the sign and the low half of the exponents.
      std::vector<uint8_t> codes(count);
      for (uint8_t& code : codes) code = static_cast<uint8_t>(engine() & 0xbf);
      const size_t blocks = (k + kernels::kFp8BlockColumns - 1) / kernels::kFp8BlockColumns;
      PackFp8({.codes = codes,
               .scales = std::vector<float>(kGroup * blocks, 0.01f),
               .scale_stride = blocks},
              k, target);
      break;
    }
  }
  const size_t group_bytes = kernels::PackedMatrixBytes(matrix.format, kGroup, k);
  const size_t bytes = kernels::PackedMatrixBytes(matrix.format, matrix.n, k);
  for (size_t at = group_bytes; at < bytes; at += group_bytes) {
    std::memcpy(destination + at, destination, std::min(group_bytes, bytes - at));
  }
}

// As many copies of a case's weights as fill the working set; each call takes the next one.
class Workload {
 public:
  Workload(const Case& shape, const Format& format, uint32_t rows)
      : shape_(shape), format_(format.format), rows_(rows) {
    const size_t layer = LayerBytes();
    const auto copies = static_cast<uint32_t>(std::max<size_t>(1, kWorkingSet / layer));
    memory_ = std::make_unique<BigBuffer>(copies * layer);
    std::byte* place = memory_->data();
    for (uint32_t i = 0; i < copies; ++i) place = AddLayer(place);
    x_.resize(size_t{rows} * shape.inputs);
    y_.resize(size_t{rows} * std::max(shape.inputs, shape.outputs));
    std::mt19937 engine(2);
    for (float& value : x_) value = (static_cast<float>(engine() % 2001) - 1000) / 1000;
    MakeRouting(engine);
  }

  std::span<const std::byte> memory() const { return {memory_->data(), memory_->size()}; }
  bool is_ffn() const { return shape_.num_experts != 0; }

  double Operations() const {
    const double per_row = 2.0 * shape_.inputs * shape_.outputs;
    return rows_ * per_row * (is_ffn() ? 3.0 * shape_.top_k : 1.0);
  }

  // Bytes of the weights that a call reads, each once.
  double ActiveBytes() const {
    const double matrix =
        static_cast<double>(kernels::PackedMatrixBytes(format_, shape_.outputs, shape_.inputs));
    if (!is_ffn()) return matrix;
    double experts = 0;
    for (const std::vector<uint32_t>& ids : ids_) {
      std::vector<bool> active(shape_.num_experts);
      for (const uint32_t id : ids) active[id] = true;
      experts += static_cast<double>(std::count(active.begin(), active.end(), true));
    }
    return 3 * matrix * experts / static_cast<double>(ids_.size());
  }

  void Run(kernels::CpuStream& stream) {
    const size_t call = next_++;
    if (!is_ffn()) {
      const kernels::LinearOutput output{
          .weight = matrices_[call % matrices_.size()], .y = y_.data(), .y_stride = shape_.outputs};
      Linear(
          {.x = x_.data(), .x_stride = shape_.inputs, .num_rows = rows_, .outputs = {&output, 1}},
          stream);
      return;
    }
    MoeFfn({.x = x_.data(),
            .num_rows = rows_,
            .top_k = shape_.top_k,
            .expert_ids = ids_[call % ids_.size()].data(),
            .expert_weights = weights_.data(),
            .first_expert = 0,
            .experts = layers_[call % layers_.size()],
            .y = y_.data()},
           stream);
  }

 private:
  size_t LayerBytes() const {
    const size_t matrix = kernels::PackedMatrixBytes(format_, shape_.outputs, shape_.inputs);
    return is_ffn() ? shape_.num_experts * 3 * matrix : matrix;
  }

  PackedMatrix AddMatrix(uint32_t n, uint32_t k, std::byte*& place) {
    const PackedMatrix matrix{.format = format_, .n = n, .k = k, .data = place};
    FillMatrix(matrix, place);
    place += kernels::PackedMatrixBytes(format_, n, k);
    return matrix;
  }

  std::byte* AddLayer(std::byte* place) {
    if (!is_ffn()) {
      matrices_.push_back(AddMatrix(shape_.outputs, shape_.inputs, place));
      return place;
    }
    std::vector<GatedFfnWeights>& layer = layers_.emplace_back();
    for (uint32_t e = 0; e < shape_.num_experts; ++e) {
      GatedFfnWeights& ffn = layer.emplace_back();
      ffn.gate = AddMatrix(shape_.outputs, shape_.inputs, place);
      ffn.up = AddMatrix(shape_.outputs, shape_.inputs, place);
      ffn.down = AddMatrix(shape_.inputs, shape_.outputs, place);
    }
    return place;
  }

  // Several uniform routings, so that calls do not repeat the same experts.
  void MakeRouting(std::mt19937& engine) {
    if (!is_ffn()) return;
    std::vector<uint32_t> experts(shape_.num_experts);
    for (uint32_t e = 0; e < shape_.num_experts; ++e) experts[e] = e;
    for (int routing = 0; routing < 61; ++routing) {
      std::vector<uint32_t>& ids = ids_.emplace_back();
      for (uint32_t t = 0; t < rows_; ++t) {
        for (uint32_t j = 0; j < shape_.top_k; ++j) {
          std::swap(experts[j], experts[j + engine() % (shape_.num_experts - j)]);
          ids.push_back(experts[j]);
        }
      }
    }
    weights_.assign(size_t{rows_} * shape_.top_k, 1.0f / static_cast<float>(shape_.top_k));
  }

  const Case shape_;
  const WeightFormat format_;
  const uint32_t rows_;
  std::unique_ptr<BigBuffer> memory_;
  std::vector<PackedMatrix> matrices_;
  std::vector<std::vector<GatedFfnWeights>> layers_;
  std::vector<std::vector<uint32_t>> ids_;
  std::vector<float> weights_;
  std::vector<float> x_;
  std::vector<float> y_;
  size_t next_ = 0;
};

struct Result {
  std::string name;
  uint32_t rows = 0;
  Statistics microseconds;  // per call
  Statistics bytes_per_second;
  Statistics operations_per_second;
  Statistics read_limit;
  Statistics peak;
  // Of medians.
  double of_read() const { return bytes_per_second.median / read_limit.median; }
  double of_peak() const {
    return peak.median > 0 ? operations_per_second.median / peak.median : 0;
  }
};

Result Measure(const Case& shape, const Format& format, uint32_t rows, const Options& options,
               kernels::CpuStream& stream) {
  Workload workload(shape, format, rows);
  std::vector<double> seconds;
  std::vector<double> read;
  std::vector<double> peak;
  workload.Run(stream);
  const double start = SecondsNow();
  workload.Run(stream);
  const double once = std::max(SecondsNow() - start, 1e-6);
  const auto calls = static_cast<uint32_t>(std::ceil(options.round_seconds / once));
  const std::span<const std::byte> sample =
      workload.memory().first(std::min<size_t>(workload.memory().size(), size_t{256} << 20));
  for (uint32_t round = 0; round < options.rounds; ++round) {
    read.push_back(MeasureRead(stream.pool(), sample));
    peak.push_back(MeasurePeak(stream.pool(), format.peak));
    const double begin = SecondsNow();
    for (uint32_t i = 0; i < calls; ++i) workload.Run(stream);
    seconds.push_back((SecondsNow() - begin) / calls);
  }
  Result result;
  result.name = std::string(shape.name) + "." + format.name;
  result.rows = rows;
  const auto rates = [&](double amount) {
    std::vector<double> values;
    for (const double s : seconds) values.push_back(amount / s);
    return StatisticsOf(std::move(values));
  };
  result.bytes_per_second = rates(workload.ActiveBytes());
  result.operations_per_second = rates(workload.Operations());
  result.read_limit = StatisticsOf(std::move(read));
  result.peak = StatisticsOf(std::move(peak));
  for (double& s : seconds) s *= 1e6;
  result.microseconds = StatisticsOf(std::move(seconds));
  return result;
}

void PrintText(const Result& r) {
  std::printf("%-24s %4u %10.1f (%8.1f..%8.1f) %7.1f %6.1f %5.2f %8.0f %7.0f %5.2f\n",
              r.name.c_str(), r.rows, r.microseconds.median, r.microseconds.min, r.microseconds.max,
              r.bytes_per_second.median / 1e9, r.read_limit.median / 1e9, r.of_read(),
              r.operations_per_second.median / 1e9, r.peak.median / 1e9, r.of_peak());
  std::fflush(stdout);
}

void PrintJson(const Result& r, bool first) {
  std::printf(
      "%s\n  {\"case\": \"%s\", \"rows\": %u, \"us\": {\"median\": %.2f, \"min\": %.2f, \"max\": "
      "%.2f}, \"gb_per_s\": %.3f, \"read_gb_per_s\": %.3f, \"of_read\": %.4f, \"gop_per_s\": %.2f, "
      "\"peak_gop_per_s\": %.2f, \"of_peak\": %.4f}",
      first ? "" : ",", r.name.c_str(), r.rows, r.microseconds.median, r.microseconds.min,
      r.microseconds.max, r.bytes_per_second.median / 1e9, r.read_limit.median / 1e9, r.of_read(),
      r.operations_per_second.median / 1e9, r.peak.median / 1e9, r.of_peak());
}

kernels::CpuIsa IsaOf(const std::string& name) {
  for (const kernels::CpuIsa isa : {kernels::CpuIsa::kPortable, kernels::CpuIsa::kAvx2}) {
    if (name == kernels::CpuIsaName(isa)) return isa;
  }
  return kernels::BestCpuIsa();
}

void RunAll(const Options& options) {
  std::vector<int> cpus;
  for (uint32_t i = 0; i < options.threads; ++i) cpus.push_back(static_cast<int>(i));
  const auto stream = kernels::CpuStream::Create(
      {.threads = {.num_threads = options.threads, .cpus = cpus}, .isa = IsaOf(options.isa)});
  if (options.json) {
    std::printf("{\"threads\": %u, \"isa\": \"%s\", \"results\": [", options.threads,
                kernels::CpuIsaName(stream->isa()));
  } else {
    std::printf("isa %s, %u threads, median of %u rounds\n", kernels::CpuIsaName(stream->isa()),
                options.threads, options.rounds);
    std::printf("%-24s %4s %10s (%8s..%8s) %7s %6s %5s %8s %7s %5s\n", "case", "rows", "us", "min",
                "max", "GB/s", "read", "ratio", "Gop/s", "peak", "ratio");
  }
  bool first = true;
  for (const Case& shape : kCases) {
    for (const Format& format : kFormats) {
      const std::string name = std::string(shape.name) + "." + format.name;
      if (name.find(options.filter) == std::string::npos) continue;
      for (const uint32_t rows : options.rows) {
        const Result result = Measure(shape, format, rows, options, *stream);
        options.json ? PrintJson(result, first) : PrintText(result);
        first = false;
      }
    }
  }
  if (options.json) std::printf("\n]}\n");
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  essor::benchmarks::Options options;
  CLI::App app("Matrix products beside the limits of this machine");
  app.add_option("--threads", options.threads, "Threads, pinned to CPUs 0, 1, ...")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--rounds", options.rounds, "Rounds per case; the median is printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--round-seconds", options.round_seconds, "Length of a round")
      ->capture_default_str();
  app.add_option("--filter", options.filter, "Only cases whose name contains this");
  app.add_option("--rows", options.rows, "Numbers of rows (tokens)")->capture_default_str();
  app.add_option("--isa", options.isa, "portable or avx2 instead of the best one");
  app.add_flag("--json", options.json, "Print JSON");
  CLI11_PARSE(app, argc, argv);
  essor::benchmarks::RunAll(options);
  return 0;
}
