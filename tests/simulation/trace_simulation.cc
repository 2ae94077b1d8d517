#include "tests/simulation/trace_simulation.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace essor::coordinator {
namespace {

constexpr uint32_t kVocab = 1000;
constexpr TokenId kEos = 0;
constexpr TokenId kWord = 1;

// Durations in bins of 2 %, so that millions of them take no memory.
class Histogram {
 public:
  void Add(absl::Duration duration) {
    const double us = std::max(absl::ToDoubleMicroseconds(duration), 1.0);
    const auto bin = static_cast<size_t>(std::log(us) / kLogStep);
    if (bin >= counts_.size()) counts_.resize(bin + 1);
    ++counts_[bin];
    ++total_;
    max_ = std::max(max_, duration);
  }
  Quantiles Summary() const { return {At(0.5), At(0.99), max_}; }

 private:
  static constexpr double kLogStep = 0.02;
  absl::Duration At(double share) const {
    uint64_t below = 0;
    for (size_t bin = 0; bin < counts_.size(); ++bin) {
      below += counts_[bin];
      if (static_cast<double>(below) >= share * static_cast<double>(total_)) {
        return absl::Microseconds(std::exp(kLogStep * (static_cast<double>(bin) + 0.5)));
      }
    }
    return max_;
  }
  std::vector<uint64_t> counts_;
  uint64_t total_ = 0;
  absl::Duration max_ = absl::ZeroDuration();
};

class TraceRun {
 public:
  TraceRun(const std::vector<TraceRequest>& trace, const Scheduler::Options& options,
           const model::KvCapacity& capacity, const StepCost& cost, const Objectives& objectives)
      : trace_(trace),
        options_(options),
        cost_(cost),
        objectives_(objectives),
        scheduler_(options, {.tokenizer = nullptr, .eos_tokens = {kEos}, .vocab_size = kVocab}) {
    scheduler_.Reset(capacity);
  }

  TraceReport Run() {
    now_ = trace_.front().arrival;
    while (next_ < trace_.size() || !live_.empty() || !steps_.empty()) {
      Arrive();
      Plan();
      if (steps_.empty()) {  // nothing to do until the next request comes
        if (next_ < trace_.size()) now_ = std::max(now_, trace_[next_].arrival);
        continue;
      }
      Complete();
    }
    report_.makespan = now_ - trace_.front().arrival;
    report_.first_token = first_tokens_.Summary();
    report_.gap = gaps_.Summary();
    report_.goodput = static_cast<double>(num_good_) / absl::ToDoubleSeconds(report_.makespan);
    report_.mean_kv_use =
        kv_use_sum_ / static_cast<double>(std::max<uint64_t>(report_.num_steps, 1));
    report_.generated_tokens = scheduler_.generated_tokens();
    report_.cached_tokens = scheduler_.cached_tokens();
    report_.preemptions = scheduler_.num_preemptions();
    return std::move(report_);
  }

 private:
  struct Live {
    uint32_t left = 0;  // tokens until its end
    uint32_t told = 0;
    absl::Time arrival;
    absl::Time first;
    absl::Time last;
    uint32_t tenant = 0;
  };
  struct InFlight {
    absl::Time begun;  // if nothing was before it
    absl::Duration takes;
    std::vector<std::pair<uint32_t, uint64_t>> sampling;  // slot, request
  };

  void Arrive() {
    for (; next_ < trace_.size() && trace_[next_].arrival <= now_; ++next_) {
      const TraceRequest& request = trace_[next_];
      const RequestId id(next_ + 1);
      GenerateTask task;
      task.prompt = PromptOf(request);
      task.max_new_tokens = request.max_new_tokens;
      task.service.tenant = absl::StrCat("t", request.tenant);
      // Finds its way back from the slot that it gets.
      task.sampling.seed = id.value();
      if (!scheduler_.Submit(id, std::move(task), now_).ok()) {
        ++report_.num_refused;
        continue;
      }
      live_[id.value()] = {.left = request.new_tokens,
                           .arrival = request.arrival,
                           .first = absl::InfiniteFuture(),
                           .last = absl::InfinitePast(),
                           .tenant = request.tenant};
      ++waiting_by_tenant_[request.tenant];
    }
  }

  // The prefix, then tokens that no other request has.
  std::shared_ptr<const std::vector<TokenId>> PromptOf(const TraceRequest& request) const {
    std::vector<TokenId> prompt(request.prompt_tokens, kWord);
    for (uint32_t i = 0; i < request.prompt_tokens; ++i) {
      if (i < request.prefix_tokens) {
        prompt[i] = 2 + (request.prefix * 31 + i * 7) % (kVocab - 2);
      } else if (i < request.prefix_tokens + 4) {
        prompt[i] = 2 + static_cast<TokenId>((next_ >> (8 * (i - request.prefix_tokens))) % 256);
      }
    }
    return std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  }

  void Plan() {
    while (scheduler_.num_in_flight() < scheduler_.max_in_flight()) {
      const std::optional<Step> step = scheduler_.PlanStep(now_);
      if (!step.has_value()) return;
      ++report_.num_steps;
      for (const SlotStart& start : step->starts)
        request_of_slot_[start.slot] = start.sampling.seed;
      InFlight in_flight{.begun = now_, .takes = TimeOf(*step), .sampling = {}};
      for (const uint32_t slot : step->decode_slots) {
        in_flight.sampling.emplace_back(slot, request_of_slot_[slot]);
      }
      for (const SequenceStep& entry : step->sequences) {
        if (!entry.hold) in_flight.sampling.emplace_back(entry.slot, request_of_slot_[entry.slot]);
      }
      steps_.push_back(std::move(in_flight));
      ObserveUse();
    }
  }

  absl::Duration TimeOf(const Step& step) const {
    std::vector<absl::Duration> groups(options_.num_groups, cost_.base);
    const auto add = [&](uint32_t slot, absl::Duration time) {
      groups[slot / options_.num_slots] += time;
    };
    for (const uint32_t slot : step.decode_slots) add(slot, cost_.per_decode);
    for (const SequenceStep& entry : step.sequences) {
      add(entry.slot, entry.tokens.empty()
                          ? cost_.per_decode
                          : cost_.per_prefill * static_cast<int64_t>(entry.tokens.size()));
    }
    return *std::max_element(groups.begin(), groups.end());
  }

  void ObserveUse() {
    double used = 0;
    double total = 0;
    for (uint32_t group = 0; group < scheduler_.num_groups(); ++group) {
      used += scheduler_.kv(group).num_used();
      total += scheduler_.kv(group).num_blocks();
    }
    kv_use_sum_ += used / total;
    report_.peak_kv_use = std::max(report_.peak_kv_use, used / total);
  }

  void Complete() {
    const InFlight step = std::move(steps_.front());
    steps_.pop_front();
    now_ = std::max(now_, step.begun) + step.takes;
    StepOutcome outcome;
    for (const auto& [slot, request] : step.sampling) {
      const auto live = live_.find(request);
      const bool ends = live != live_.end() && live->second.told + 1 >= live->second.left;
      outcome.sampled.push_back({slot, ends ? kEos : kWord});
    }
    events_.clear();
    const absl::Status status = scheduler_.ApplyOutcome(std::span(&outcome, 1), now_, &events_);
    if (!status.ok()) std::abort();
    for (const RequestEvent& event : events_) Take(event);
  }

  // Whether every tenant has more requests than could be on their way to a first token.
  bool AllWait() const {
    return std::all_of(waiting_by_tenant_.begin(), waiting_by_tenant_.end(),
                       [&](const auto& one) { return one.second > options_.max_running_requests; });
  }

  void Take(const RequestEvent& event) {
    const auto found = live_.find(event.request.value());
    Live& live = found->second;
    if (event.tokens.has_value()) {
      if (live.told++ == 0) {
        live.first = now_;
        --waiting_by_tenant_[live.tenant];
        first_tokens_.Add(now_ - live.arrival);
      } else {
        gaps_.Add(now_ - live.last);
      }
      live.last = now_;
      if (AllWait()) ++report_.tokens_by_tenant[absl::StrCat("t", live.tenant)];
    }
    if (!event.done.has_value()) return;
    ++report_.num_finished;
    const absl::Duration mean_gap = (live.last - live.first) / std::max(live.told - 1, 1u);
    const bool good =
        live.first - live.arrival <= objectives_.first_token && mean_gap <= objectives_.gap;
    num_good_ += good ? 1 : 0;
    live_.erase(found);
  }

  const std::vector<TraceRequest>& trace_;
  const Scheduler::Options options_;
  const StepCost cost_;
  const Objectives objectives_;
  Scheduler scheduler_;
  absl::Time now_;
  size_t next_ = 0;
  std::deque<InFlight> steps_;
  absl::flat_hash_map<uint64_t, Live> live_;
  absl::flat_hash_map<uint32_t, uint64_t> request_of_slot_;
  std::vector<RequestEvent> events_;
  std::map<uint32_t, uint32_t> waiting_by_tenant_;  // accepted, without a token yet
  Histogram first_tokens_;
  Histogram gaps_;
  uint64_t num_good_ = 0;
  double kv_use_sum_ = 0;
  TraceReport report_;
};

std::string Show(const Quantiles& quantiles) {
  return absl::StrFormat(
      "p50 %.1f ms, p99 %.1f ms, max %.1f ms", absl::ToDoubleMilliseconds(quantiles.p50),
      absl::ToDoubleMilliseconds(quantiles.p99), absl::ToDoubleMilliseconds(quantiles.max));
}

}  // namespace

std::vector<TraceRequest> MakeTrace(const TraceOptions& options) {
  std::mt19937_64 random(options.seed);
  std::exponential_distribution<double> gap(options.requests_per_second);
  // Log-normal with these means and a spread as of real conversations: sigma 0.8.
  constexpr double kSigma = 0.8;
  const auto around = [](double mean) {
    return std::lognormal_distribution<double>(std::log(mean) - kSigma * kSigma / 2, kSigma);
  };
  auto prompt = around(options.mean_prompt_tokens);
  auto answer = around(options.mean_new_tokens);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<TraceRequest> trace;
  trace.reserve(options.num_requests);
  double seconds = 0;
  for (uint64_t i = 0; i < options.num_requests; ++i) {
    seconds += gap(random);
    TraceRequest request;
    request.arrival = absl::UnixEpoch() + absl::Seconds(seconds);
    request.prompt_tokens = 1 + static_cast<uint32_t>(prompt(random));
    if (uniform(random) < options.prefix_share) {
      request.prefix = static_cast<uint32_t>(random() % options.num_prefixes);
      request.prefix_tokens = request.prompt_tokens / 2;
    }
    request.new_tokens = 1 + static_cast<uint32_t>(answer(random));
    request.max_new_tokens =
        4 * static_cast<uint32_t>(options.mean_new_tokens) + request.new_tokens;
    request.tenant = static_cast<uint32_t>(random() % options.num_tenants);
    trace.push_back(request);
  }
  return trace;
}

std::string TraceReport::ToString() const {
  std::string text = absl::StrFormat(
      "%d requests finished, %d refused, in %.0f s of %d steps\n"
      "time to first token: %s\ngap between tokens: %s\n"
      "goodput %.2f requests/s, %.0f tokens/s, KV use %.0f %% (peak %.0f %%)\n"
      "%d prompt tokens cached, %d preemptions",
      num_finished, num_refused, absl::ToDoubleSeconds(makespan), num_steps, Show(first_token),
      Show(gap), goodput, static_cast<double>(generated_tokens) / absl::ToDoubleSeconds(makespan),
      100 * mean_kv_use, 100 * peak_kv_use, cached_tokens, preemptions);
  for (const auto& [tenant, tokens] : tokens_by_tenant) {
    absl::StrAppend(&text, "\n  ", tenant, ": ", tokens, " tokens while all waited");
  }
  return text;
}

TraceReport RunTrace(const std::vector<TraceRequest>& trace, const Scheduler::Options& options,
                     const model::KvCapacity& capacity, const StepCost& cost,
                     const Objectives& objectives) {
  return TraceRun(trace, options, capacity, cost, objectives).Run();
}

}  // namespace essor::coordinator
