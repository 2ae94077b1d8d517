#include "coordinator/core/fair_queue.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace essor::coordinator {

uint32_t FairQueue::Tenant(const std::string& name) {
  const auto [found, is_new] = by_name_.try_emplace(name, 0);
  if (is_new) {
    if (unused_.empty()) {
      found->second = static_cast<uint32_t>(tenants_.size());
      tenants_.emplace_back();
    } else {
      found->second = unused_.back();
      unused_.pop_back();
    }
    TenantState& tenant = tenants_[found->second];
    tenant = TenantState();
    tenant.name = name;
    tenant.served = floor_;
    const auto weight = weights_.find(name);
    if (weight != weights_.end()) tenant.weight = weight->second;
  }
  TenantState& tenant = tenants_[found->second];
  if (tenant.holders++ == 0) idle_.erase({tenant.served, found->second});
  return found->second;
}

void FairQueue::Forget(uint32_t id) {
  TenantState& tenant = tenants_[id];
  ESSOR_CHECK(tenant.holders > 0);
  if (--tenant.holders > 0) return;
  ESSOR_CHECK(tenant.num_waiting == 0);
  tenant.served += std::exchange(tenant.unsettled, 0) / tenant.weight;
  idle_.insert({tenant.served, id});
  DropIdle();
}

// Those who are owed nothing need not be remembered; of the others, the least indebted go.
void FairQueue::DropIdle() {
  while (!idle_.empty() && (idle_.begin()->first <= floor_ || idle_.size() > kMaxIdleTenants)) {
    const uint32_t id = idle_.begin()->second;
    idle_.erase(idle_.begin());
    by_name_.erase(tenants_[id].name);
    tenants_[id] = TenantState();
    unused_.push_back(id);
  }
}

FairQueue::Place FairQueue::Push(uint32_t id, int32_t priority, RequestId request) {
  TenantState& tenant = tenants_[id];
  if (tenant.num_waiting++ == 0) {
    const double least = waiting_.empty() ? floor_ : waiting_.begin()->first;
    tenant.served = std::max(tenant.served, least);
    waiting_.insert({tenant.served, id});
  }
  std::list<RequestId>& line = tenant.waiting[priority];
  if (line.empty()) levels_[priority].insert({tenant.served, id});
  ++size_;
  return {.tenant = id, .priority = priority, .position = line.insert(line.end(), request)};
}

void FairQueue::Erase(const Place& place) {
  TenantState& tenant = tenants_[place.tenant];
  const auto line = tenant.waiting.find(place.priority);
  line->second.erase(place.position);
  --size_;
  if (line->second.empty()) {
    tenant.waiting.erase(line);
    const auto level = levels_.find(place.priority);
    level->second.erase({tenant.served, place.tenant});
    if (level->second.empty()) levels_.erase(level);
  }
  if (--tenant.num_waiting > 0) return;
  floor_ = std::max(floor_, waiting_.begin()->first);
  waiting_.erase({tenant.served, place.tenant});
}

RequestId FairQueue::Front() const {
  ESSOR_CHECK(!empty());
  const auto& [priority, turns] = *levels_.rbegin();
  return tenants_[turns.begin()->second].waiting.at(priority).front();
}

void FairQueue::Charge(uint32_t id, double work) {
  TenantState& tenant = tenants_[id];
  if (tenant.unsettled == 0 && work > 0) charged_.push_back(id);
  tenant.unsettled += work;
}

void FairQueue::Settle() {
  for (const uint32_t id : charged_) {
    TenantState& tenant = tenants_[id];
    const double work = std::exchange(tenant.unsettled, 0);
    if (work > 0) Rekey(&tenant, id, tenant.served + work / tenant.weight);
  }
  charged_.clear();
}

void FairQueue::Rekey(TenantState* tenant, uint32_t id, double served) {
  if (tenant->num_waiting > 0) {
    waiting_.erase({tenant->served, id});
    waiting_.insert({served, id});
    for (const auto& [priority, line] : tenant->waiting) {
      std::set<Turn>& level = levels_.at(priority);
      level.erase({tenant->served, id});
      level.insert({served, id});
    }
  }
  tenant->served = served;
}

}  // namespace essor::coordinator
