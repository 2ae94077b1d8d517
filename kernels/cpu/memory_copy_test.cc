#include "kernels/memory_copy.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_stream.h"

namespace essor::kernels {
namespace {

// Pieces of all sizes, from none to some that several threads share, at odd places; what lies
// between them stays.
TEST(MemoryCopyTest, CopiesEveryPieceAndNothingElse) {
  for (const uint32_t num_threads : {1u, 3u}) {
    const auto stream = CpuStream::Create({.threads = {.num_threads = num_threads}});
    for (const std::vector<size_t>& sizes :
         {std::vector<size_t>{}, {1}, {0, 5, 64, 0}, {100'001, 3, 200'000, 63}}) {
      size_t total = 7;
      for (const size_t size : sizes) total += size + 7;
      std::vector<std::byte> from(total);
      std::mt19937 random(3);
      for (std::byte& value : from) value = static_cast<std::byte>(random());
      std::vector<std::byte> to(total, std::byte{0x5a});
      std::vector<std::byte> expected = to;
      std::vector<CopyPiece> pieces;
      size_t at = 7;
      for (const size_t size : sizes) {
        pieces.push_back({.from = from.data() + at, .to = to.data() + at, .bytes = size});
        std::copy_n(from.begin() + static_cast<ptrdiff_t>(at), size,
                    expected.begin() + static_cast<ptrdiff_t>(at));
        at += size + 7;
      }
      CopyMemory(pieces, *stream);
      EXPECT_EQ(to, expected) << sizes.size() << " pieces, " << num_threads << " threads";
    }
  }
}

}  // namespace
}  // namespace essor::kernels
