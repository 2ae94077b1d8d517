// Unaligned loads and stores for the files that are compiled once per instruction set: templates
// over Isa, a type without external linkage, so that each file has its own.
#pragma once

#include <cstddef>
#include <cstring>

namespace essor::kernels::micro {

template <typename Isa, typename T>
inline T LoadAs(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename Isa, typename T>
inline void StoreAs(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

}  // namespace essor::kernels::micro
