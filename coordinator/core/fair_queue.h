// Whose turn it is: waiting requests by priority, and within a priority by what their tenants have
// been served.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "coordinator/core/request.h"

namespace essor::coordinator {

// Higher priorities go first. Within one priority the tenant that has been served least goes first:
// every tenant has a counter of the work done for it, divided by its weight; a tenant that comes
// back from having nothing to do starts at the least counter of those that wait, so that idling
// saves nothing up (virtual token counters: Sheng et al., "Fairness in Serving Large Language
// Models", arXiv 2401.00588, algorithm 2). Two tenants that both always have requests waiting
// differ in counters by no more than one request's work. One tenant's requests go in order of
// arrival.
//
// Deterministic, thread-compatible. Everything is O(log tenants); Settle() for each that was
// charged.
class FairQueue {
 public:
  // Tenants that are not named have weight 1. Weights are above 0.
  explicit FairQueue(std::map<std::string, double> weights) : weights_(std::move(weights)) {}

  struct Place {
    uint32_t tenant = 0;
    int32_t priority = 0;
    std::list<RequestId>::iterator position;
  };

  // A handle of a tenant's name. Held until Forget() is called as often.
  uint32_t Tenant(const std::string& name);
  void Forget(uint32_t tenant);

  Place Push(uint32_t tenant, int32_t priority, RequestId request);
  void Erase(const Place& place);
  // The next request; only while not empty.
  RequestId Front() const;
  int32_t FrontPriority() const { return levels_.rbegin()->first; }

  // Work done for a tenant; counts from the next Settle() on.
  void Charge(uint32_t tenant, double work);
  void Settle();

  bool empty() const { return size_ == 0; }
  uint32_t size() const { return size_; }
  uint32_t num_tenants() const { return static_cast<uint32_t>(by_name_.size()); }
  double Served(uint32_t tenant) const { return tenants_[tenant].served; }

 private:
  // Tenants with nothing alive whose counters are kept: what they were served in advance.
  static constexpr size_t kMaxIdleTenants = 4096;

  struct TenantState {
    std::string name;
    double weight = 1;
    double served = 0;
    double unsettled = 0;  // work not yet counted
    uint32_t holders = 0;
    uint32_t num_waiting = 0;
    std::map<int32_t, std::list<RequestId>> waiting;  // by priority, none empty
  };
  using Turn = std::pair<double, uint32_t>;  // counter, tenant

  void Rekey(TenantState* tenant, uint32_t id, double served);
  void DropIdle();

  const std::map<std::string, double> weights_;
  std::vector<TenantState> tenants_;
  std::vector<uint32_t> unused_;
  std::vector<uint32_t> charged_;  // since the last Settle(); may have forgotten ones
  absl::flat_hash_map<std::string, uint32_t> by_name_;
  std::map<int32_t, std::set<Turn>> levels_;  // of tenants that wait, none empty
  std::set<Turn> waiting_;                    // all of those, once each
  std::set<Turn> idle_;                       // tenants without holders
  double floor_ = 0;                          // least counter of the last who waited
  uint32_t size_ = 0;
};

}  // namespace essor::coordinator
