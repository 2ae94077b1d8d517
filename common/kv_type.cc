#include "common/kv_type.h"

#include <cstddef>
#include <iterator>

#include "common/check.h"

namespace essor {
namespace {

constexpr KvType kTypes[] = {KvType::kFloat32, KvType::kBFloat16, KvType::kFp8, KvType::kInt8};
constexpr const char* kNames[] = {"float32", "bfloat16", "fp8", "int8"};

}  // namespace

const char* NameOf(KvType type) {
  const auto index = static_cast<size_t>(type);
  ESSOR_CHECK(index < std::size(kNames));
  return kNames[index];
}

std::optional<KvType> ParseKvType(const std::string& name) {
  for (const KvType type : kTypes) {
    if (name == NameOf(type)) return type;
  }
  return std::nullopt;
}

}  // namespace essor
