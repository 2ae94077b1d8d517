// What a fork and a join of a rank's threads cost: back to back, when the members still spin, and
// after pauses, when they sleep and have to be woken.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "kernels/cpu/thread_pool.h"
#include "tests/benchmarks/machine_limits.h"

namespace essor::benchmarks {
namespace {

struct Options {
  std::vector<uint32_t> threads = {1, 2};
  uint32_t runs = 20000;
  uint32_t rounds = 7;
  bool json = false;
};

struct Case {
  const char* name;
  uint32_t spin_iterations;
  double pause_seconds;  // of the owner, busy, between two runs
};
constexpr Case kCases[] = {
    {"hot", 4000, 0}, {"pause-20us", 4000, 20e-6}, {"pause-1ms", 4000, 1e-3}, {"no-spin", 0, 0}};

// Microseconds of one empty Run.
Statistics Measure(const Case& c, uint32_t threads, const Options& options) {
  std::vector<int> cpus;
  for (uint32_t i = 0; i < threads; ++i) cpus.push_back(static_cast<int>(i));
  const auto pool = kernels::ThreadPool::Create(
      {.num_threads = threads, .cpus = cpus, .spin_iterations = c.spin_iterations});
  // A round of pauses is to take no longer than a second.
  const uint32_t runs = c.pause_seconds > 0
                            ? std::min(options.runs, static_cast<uint32_t>(1 / c.pause_seconds))
                            : options.runs;
  std::vector<double> samples;
  for (uint32_t round = 0; round < options.rounds; ++round) {
    double total = 0;
    for (uint32_t i = 0; i < runs; ++i) {
      const double begin = SecondsNow();
      pool->Run([](uint32_t) {});
      const double end = SecondsNow();
      total += end - begin;
      while (SecondsNow() < end + c.pause_seconds) {
      }
    }
    samples.push_back(total / runs * 1e6);
  }
  return StatisticsOf(std::move(samples));
}

void RunAll(const Options& options) {
  if (options.json) {
    std::printf("{\"results\": [");
  } else {
    std::printf("%-12s %7s %10s (%8s..%8s)\n", "case", "threads", "us/run", "min", "max");
  }
  bool first = true;
  for (const Case& c : kCases) {
    for (const uint32_t threads : options.threads) {
      const Statistics us = Measure(c, threads, options);
      if (options.json) {
        std::printf(
            "%s\n  {\"case\": \"%s\", \"threads\": %u, \"us\": {\"median\": %.3f, \"min\": %.3f, "
            "\"max\": %.3f}}",
            first ? "" : ",", c.name, threads, us.median, us.min, us.max);
      } else {
        std::printf("%-12s %7u %10.3f (%8.3f..%8.3f)\n", c.name, threads, us.median, us.min,
                    us.max);
        std::fflush(stdout);
      }
      first = false;
    }
  }
  if (options.json) std::printf("\n]}\n");
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  essor::benchmarks::Options options;
  CLI::App app("Cost of a fork and a join of a rank's threads");
  app.add_option("--threads", options.threads, "Numbers of threads, pinned to CPUs 0, 1, ...")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--runs", options.runs, "Forks and joins per round")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000000));
  app.add_option("--rounds", options.rounds, "Rounds per case; the median is printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_flag("--json", options.json, "Print JSON");
  CLI11_PARSE(app, argc, argv);
  essor::benchmarks::RunAll(options);
  return 0;
}
