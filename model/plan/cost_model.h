// What a plan costs: bytes per rank, bytes per link and token, predicted decoding speed. A simple
// model with named inputs, meant to rank plans; it knows nothing of kernels and schedules.
//
// One decode step of `batch` sequences, each with `context_tokens` behind it and b = ceil(batch /
// dp) of them in each data-parallel group, is the sum over the stages, and within a stage over its
// layers, of
//   attention: max over ranks of  (attention bytes + b x context x KV bytes) / memory bandwidth
//              and                2 x b x (attention parameters + context x heads x 2 head_dim)
//                                 / flops
//              + all-reduce over the tp group
//   FFN:       max over ranks of  bytes read / memory bandwidth  and  2 x tokens x parameters /
//              flops, of routed experts for the tokens of all groups, else for b
//              + all-reduce over the tp group (dense) or the data-parallel group (MoE)
//              + with several groups the exchange of rows with experts
// and of the head on the last stage. Of E experts with top-k routing taken as uniform, a batch of B
// tokens touches E (1 - (1 - k/E)^B); what counts is how many of them the busiest rank has, whose
// expectation is computed exactly (BusiestExperts).
//
// An all-reduce of P bytes over n ranks sends 2 (n-1)/n P bytes per rank and direction and takes
// latency + bytes / bandwidth of the slowest link in the group. Activations travel as float32. An
// exchange of rows with experts (worker/layers/expert_exchange.h) has three latencies; a token goes
// once to each rank that has some of its experts (their expected number, with choices taken as
// uniform), in bfloat16 where the experts take it, and a row of float32 comes back for each
// expert, or slice of one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/dtype.h"
#include "common/kv_type.h"
#include "model/plan/parallel_plan.h"

namespace essor::model {

struct Link {
  double bytes_per_second = 0;  // per rank and direction
  double latency_seconds = 0;   // of one exchange
};

// One device (a rank) and how it reaches others. The defaults are a rank on one core of a server:
// about half of the 45 GB/s that two cores of an EPYC read from memory, a fifth of what they
// multiply in bf16 at most, shared memory on the host and TCP beyond it.
struct Hardware {
  double memory_bytes_per_second = 20e9;
  double flops = 200e9;
  Link device_link = {.bytes_per_second = 5e9, .latency_seconds = 15e-6};
  Link network = {.bytes_per_second = 1e9, .latency_seconds = 60e-6};
  uint32_t devices_per_node = 8;
};

// The published figures of an H200 (4.8 TB/s, 990 TFLOPS in bf16, NVLink 450 GB/s a direction) with
// a 400 Gb/s network card each; the latencies are those of a small collective.
Hardware H200Hardware();

struct Workload {
  uint32_t batch = 16;
  uint32_t context_tokens = 4096;
};

// Bytes that the rank which sends most sends for one token of one sequence; of an exchange with
// experts also those that other ranks send back to it.
struct Traffic {
  uint64_t attention = 0;  // all-reduces after attention, all its layers
  uint64_t ffn = 0;        // after FFNs
  uint64_t embedding = 0;
  uint64_t pipeline = 0;  // to the next stage
  uint64_t total() const { return attention + ffn + embedding + pipeline; }
};

struct Price {
  double step_seconds = 0;     // one token for each sequence of the batch
  double compute_seconds = 0;  // of that, reading and multiplying
  double exchange_seconds = 0;
  double tokens_per_second = 0;  // batch / step_seconds
  Traffic traffic;
};

struct PriceRequest {
  const ModelSpec* spec;
  ParallelPlan plan = {};                // valid for the spec
  const std::vector<RankLayout>* ranks;  // LayoutsOf(plan, ...)
  DType stored = DType::kBF16;
  bool fp32 = false;
  KvType kv_type = KvType::kBFloat16;
  Hardware hardware = {};
  Workload workload = {};
};
Price PricePlan(const PriceRequest& request);

// `chosen` experts are drawn without replacement, all sets equally likely; group i holds sizes[i]
// of them. The expected number in the group that has most. `chosen` is at most the sum of sizes.
double BusiestExperts(std::span<const uint64_t> sizes, uint64_t chosen);

}  // namespace essor::model
