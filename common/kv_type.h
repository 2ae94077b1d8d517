// Element types of a KV cache, and the bytes that its vectors take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace essor {

// What is stored of a token depends on the token's own vectors only, whatever else is cached.
enum class KvType : uint8_t {
  kFloat32,
  kBFloat16,
  // ToFloat8E4M3 (common/float8.h) of each value as it is: values beyond 448 become 448, infinities
  // NaN.
  kFp8,
  // A byte q for each value and a float scale for the vector, which is a token's key or value of
  // one KV head, or its latent: the scale is the largest magnitude / 127, q = value / scale rounded
  // to nearest even, and q * scale what is read. A vector with an infinity or NaN is read as NaN
  // throughout; one whose scale would be no normal float (largest magnitude below 1.5e-36) as
  // zeros.
  kInt8,
};

// "float32", "bfloat16", "fp8", "int8".
const char* NameOf(KvType type);
std::optional<KvType> ParseKvType(const std::string& name);

constexpr bool IsQuantised(KvType type) { return type == KvType::kFp8 || type == KvType::kInt8; }

constexpr uint32_t ElementBytes(KvType type) {
  return type == KvType::kFloat32 ? 4 : type == KvType::kBFloat16 ? 2 : 1;
}
// Of the scale of each vector.
constexpr uint32_t ScaleBytes(KvType type) { return type == KvType::kInt8 ? 4 : 0; }

// The type of what a cache of `type` holds beside its vectors and that is not quantised: the
// rotated key beside a latent, and an indexer's keys.
constexpr KvType UnquantisedType(KvType type) {
  return IsQuantised(type) ? KvType::kBFloat16 : type;
}

// A vector with its scale.
constexpr uint64_t KvVectorBytes(KvType type, uint64_t dim) {
  return dim * ElementBytes(type) + ScaleBytes(type);
}

// A token's latent with its scale, and its rotated key; whole floats where quantised.
constexpr uint64_t LatentRowBytes(KvType type, uint64_t latent_dim, uint64_t rope_dim) {
  const uint64_t bytes =
      KvVectorBytes(type, latent_dim) + KvVectorBytes(UnquantisedType(type), rope_dim);
  return IsQuantised(type) ? (bytes + 3) / 4 * 4 : bytes;
}

}  // namespace essor
