#include "coordinator/service/coordinator_metrics.h"

#include "prometheus/text_serializer.h"

namespace essor::coordinator {
namespace {

using prometheus::Registry;

prometheus::Gauge& Gauge(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Counter& Counter(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& Seconds(Registry& registry, const char* name, const char* help) {
  // 0.5 ms to a minute in steps of about two.
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      {}, prometheus::Histogram::BucketBoundaries{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                                                  0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60});
}

}  // namespace

CoordinatorMetrics::CoordinatorMetrics()
    : rejected_(prometheus::BuildCounter()
                    .Name("essor_requests_rejected_total")
                    .Help("Requests turned away before they ran, by reason")
                    .Register(registry_)),
      finished_(prometheus::BuildCounter()
                    .Name("essor_requests_finished_total")
                    .Help("Accepted requests that ended, by status code")
                    .Register(registry_)),
      requests_running(Gauge(registry_, "essor_requests_running",
                             "Requests with at least one sequence in the running batch")),
      requests_waiting(
          Gauge(registry_, "essor_requests_waiting", "Accepted requests that wait for room")),
      epoch(Gauge(registry_, "essor_epoch", "Formation of the instance; grows with each")),
      ready(Gauge(registry_, "essor_ready", "1 while a step can be served, else 0")),
      workers(Gauge(registry_, "essor_workers", "Workers whose stream stands")),
      kv_blocks_used(Gauge(registry_, "essor_kv_blocks_used", "KV blocks that hold tokens")),
      kv_blocks_cached(Gauge(registry_, "essor_kv_blocks_cached",
                             "KV blocks that hold only prefixes that may be asked for again")),
      kv_blocks_total(Gauge(registry_, "essor_kv_blocks_total", "KV blocks of the instance")),
      generated_tokens(
          Counter(registry_, "essor_generated_tokens_total", "Tokens generated for requests")),
      prompt_tokens(Counter(registry_, "essor_prompt_tokens_total", "Prompt tokens accepted")),
      steps(Counter(registry_, "essor_steps_total", "Steps completed by every rank")),
      step_tokens(Counter(registry_, "essor_step_tokens_total", "Tokens computed by steps")),
      cached_tokens(Counter(registry_, "essor_prefix_cached_tokens_total",
                            "Prompt tokens found in the prefix cache")),
      preemptions(Counter(registry_, "essor_preemptions_total",
                          "Sequences put back to make room, to be computed again")),
      discarded_tokens(Counter(registry_, "essor_discarded_tokens_total",
                               "Tokens sampled behind the end of their sequence")),
      epochs_lost(Counter(registry_, "essor_epochs_lost_total",
                          "Serving epochs ended by a lost worker or a failed rank")),
      plan_changes(Counter(registry_, "essor_plan_changes_total",
                           "Formations under another plan than the one before")),
      step_seconds(
          Seconds(registry_, "essor_step_seconds", "Time from sending a step to its last answer")),
      step_compute_seconds(Seconds(registry_, "essor_step_compute_seconds",
                                   "Longest time a worker computed in a step, peers waited for "
                                   "included")),
      first_token_seconds(Seconds(registry_, "essor_time_to_first_token_seconds",
                                  "Time from accepting a request to its first token")),
      request_seconds(Seconds(registry_, "essor_request_seconds",
                              "Time from accepting a continuation to its last token")) {}

std::string CoordinatorMetrics::Render() const {
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

void CoordinatorMetrics::CountRejection(const std::string& reason) {
  rejected_.Add({{"reason", reason}}).Increment();
}

void CoordinatorMetrics::CountFinished(const std::string& code) {
  finished_.Add({{"code", code}}).Increment();
}

}  // namespace essor::coordinator
