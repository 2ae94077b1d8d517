// How fast weights are loaded and packed, beside the raw read speed of the same files in the same
// run: once from the page cache and once after asking the kernel to drop them from it.
//
//   load_benchmark --model DIR_OR_GGUF [--threads 2] [--rounds 3]
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "model/plan/weight_slices.h"
#include "model/source/model_source.h"
#include "tests/benchmarks/machine_limits.h"
#include "worker/loader/weight_loader.h"

namespace essor::benchmarks {
namespace {

constexpr size_t kReadBytes = 8 << 20;

std::vector<std::string> WeightFiles(const std::string& model) {
  if (!std::filesystem::is_directory(model)) return {model};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  return files;
}

void DropFromCache(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

// Bytes per second of read() into one buffer, front to back.
double RawReadRate(const std::vector<std::string>& files) {
  const auto buffer = std::make_unique<char[]>(kReadBytes);
  double bytes = 0;
  const double start = SecondsNow();
  for (const std::string& file : files) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 0; (got = read(fd, buffer.get(), kReadBytes)) > 0;) {
      bytes += static_cast<double>(got);
    }
    close(fd);
  }
  return bytes / (SecondsNow() - start);
}

// File bytes per second of one rank's load. Config, header and tokenizer are read before.
absl::StatusOr<double> LoadRate(const std::string& model, uint32_t threads, bool cold,
                                const std::vector<std::string>& files, double file_bytes) {
  auto source = model::ModelSource::Open(model);
  if (!source.ok()) return source.status();
  if (cold) DropFromCache(files);
  const double start = SecondsNow();
  const auto layout = model::LayoutOf({}, (*source)->spec, 0, 1);
  const auto slices = model::SlicesOf(layout, (*source)->spec, (*source)->bindings);
  const auto weights = worker::LoadRankWeights({.checkpoint = (*source)->checkpoint.get(),
                                                .layout = &layout,
                                                .slices = &slices,
                                                .num_threads = threads});
  if (!weights.ok()) return weights.status();
  return file_bytes / (SecondsNow() - start);
}

int Run(const std::string& model, uint32_t threads, uint32_t rounds) {
  const std::vector<std::string> files = WeightFiles(model);
  double bytes = 0;
  for (const std::string& file : files)
    bytes += static_cast<double>(std::filesystem::file_size(file));
  for (const bool cold : {false, true}) {
    std::vector<double> raw, load, ratio;
    for (uint32_t round = 0; round < rounds; ++round) {
      if (cold) DropFromCache(files);
      raw.push_back(RawReadRate(files) / 1e9);
      const auto rate = LoadRate(model, threads, cold, files, bytes);
      if (!rate.ok()) {
        std::fprintf(stderr, "%s\n", rate.status().ToString().c_str());
        return 1;
      }
      load.push_back(*rate / 1e9);
      ratio.push_back(load.back() / raw.back());
    }
    const Statistics r = StatisticsOf(raw), l = StatisticsOf(load), q = StatisticsOf(ratio);
    std::printf("%s  raw read %.2f GB/s, load %.2f GB/s, ratio median %.2f min %.2f max %.2f\n",
                cold ? "not cached" : "cached    ", r.median, l.median, q.median, q.min, q.max);
  }
  return 0;
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  CLI::App app{"Weight loading beside the raw read speed of the files"};
  std::string model;
  uint32_t threads = 2;
  uint32_t rounds = 3;
  app.add_option("--model", model, "Hugging Face directory or .gguf")->required();
  app.add_option("--threads", threads, "Loader threads")->capture_default_str();
  app.add_option("--rounds", rounds, "Measured rounds")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return essor::benchmarks::Run(model, threads, rounds);
}
