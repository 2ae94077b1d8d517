#include "common/kv_type.h"

#include "gtest/gtest.h"

namespace essor {
namespace {

TEST(KvTypeTest, NamesAreReadBack) {
  for (const KvType type : {KvType::kFloat32, KvType::kBFloat16, KvType::kFp8, KvType::kInt8}) {
    EXPECT_EQ(ParseKvType(NameOf(type)), type);
  }
  for (const char* name : {"", "auto", "FP8", "fp8 ", "int4"}) {
    EXPECT_EQ(ParseKvType(name), std::nullopt) << name;
  }
}

TEST(KvTypeTest, AScaleIsBesideEachVectorOfBytes) {
  EXPECT_EQ(KvVectorBytes(KvType::kFloat32, 64), 256u);
  EXPECT_EQ(KvVectorBytes(KvType::kBFloat16, 64), 128u);
  EXPECT_EQ(KvVectorBytes(KvType::kFp8, 64), 64u);
  EXPECT_EQ(KvVectorBytes(KvType::kInt8, 64), 68u);
}

TEST(KvTypeTest, RotatedKeysBesideQuantisedLatentsAreBFloat16) {
  EXPECT_EQ(LatentRowBytes(KvType::kFloat32, 512, 64), 2304u);
  EXPECT_EQ(LatentRowBytes(KvType::kBFloat16, 512, 64), 1152u);
  EXPECT_EQ(LatentRowBytes(KvType::kFp8, 512, 64), 640u);
  EXPECT_EQ(LatentRowBytes(KvType::kInt8, 512, 64), 644u);
  EXPECT_EQ(LatentRowBytes(KvType::kInt8, 21, 6), 40u) << "37 bytes, and whole floats";
  EXPECT_EQ(LatentRowBytes(KvType::kBFloat16, 21, 6), 54u);
}

}  // namespace
}  // namespace essor
