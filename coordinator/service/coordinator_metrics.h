// The metrics that a coordinator serves at /metrics.
#pragma once

#include <memory>
#include <string>

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace essor::coordinator {

// Every member is thread-safe; references stay valid as long as this object.
class CoordinatorMetrics {
 public:
  CoordinatorMetrics();

  // The exposition in Prometheus' text format 0.0.4.
  std::string Render() const;
  // Counts a request that was turned away before it ran.
  void CountRejection(const std::string& reason);
  // Counts a request that ended, by its status code.
  void CountFinished(const std::string& code);

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& rejected_;
  prometheus::Family<prometheus::Counter>& finished_;

 public:
  prometheus::Gauge& requests_running;
  prometheus::Gauge& requests_waiting;
  prometheus::Gauge& epoch;
  prometheus::Gauge& ready;
  prometheus::Gauge& workers;
  prometheus::Gauge& kv_blocks_used;
  prometheus::Gauge& kv_blocks_cached;
  prometheus::Gauge& kv_blocks_total;
  prometheus::Counter& generated_tokens;
  prometheus::Counter& prompt_tokens;
  prometheus::Counter& steps;
  prometheus::Counter& step_tokens;
  prometheus::Counter& cached_tokens;
  prometheus::Counter& preemptions;
  prometheus::Counter& discarded_tokens;
  prometheus::Counter& epochs_lost;
  prometheus::Counter& plan_changes;
  prometheus::Histogram& step_seconds;
  prometheus::Histogram& step_compute_seconds;
  prometheus::Histogram& first_token_seconds;
  prometheus::Histogram& request_seconds;
};

}  // namespace essor::coordinator
