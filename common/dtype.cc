#include "common/dtype.h"

#include "common/check.h"

namespace essor {

const DTypeInfo& InfoOf(DType dtype) {
  static constexpr DTypeInfo kInfo[] = {
      {"f32", 1, 4},     {"f16", 1, 2},       {"bf16", 1, 2},     {"i64", 1, 8},
      {"i32", 1, 4},     {"u8", 1, 1},        {"q8_0", 32, 34},   {"q4_0", 32, 18},
      {"q4_1", 32, 20},  {"q4_k", 256, 144},  {"q6_k", 256, 210}, {"f8_e4m3", 1, 1},
      {"f8_e8m0", 1, 1}, {"f4_e2m1", 32, 16}, {"i4", 32, 16},
  };
  const auto index = static_cast<size_t>(dtype);
  ESSOR_CHECK(index < sizeof(kInfo) / sizeof(kInfo[0]));
  return kInfo[index];
}

}  // namespace essor
