// Any bytes as config.json: refused or mapped, and what was mapped can be counted, bound, divided
// and rotated.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>

#include "common/check.h"
#include "model/spec/families.h"
#include "model/spec/rope_frequencies.h"

using namespace essor::model;  // NOLINT: a fuzz target is one function

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = ConfigView::Parse({reinterpret_cast<const char*>(data), size}, "config.json");
  if (!config.ok()) return 0;
  const auto spec = SpecFromConfig(*config);
  if (!spec.ok()) return 0;
  ESSOR_CHECK(!spec->layers.empty());
  ESSOR_CHECK(spec->NumParameters() >= spec->NumActiveParameters());
  const AttentionSpec& attention = spec->layers.front().attention;
  if (const auto* grouped = std::get_if<GroupedQueryAttention>(&attention)) {
    ESSOR_CHECK(grouped->num_heads % grouped->num_kv_heads == 0);
  }
  const RopeSpec& rope = RopeOf(attention);
  ESSOR_CHECK(FrequenciesOf(rope).inverse_frequencies.size() == rope.rotary_dim / 2);
  // Listing weights takes time with the sizes; large ones are the unit tests' business.
  if (spec->layers.size() > 64) return 0;
  for (const WeightBinding& binding : BindingsOf(*spec, [](const std::string&) { return false; })) {
    ESSOR_CHECK(binding.rows > 0 && binding.cols > 0 && !binding.tensor.empty());
  }
  return 0;
}
