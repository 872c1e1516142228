#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr std::int64_t kSizes[] = {0, 1, 7, 8, 4099};
constexpr DType kFloats[] = {DType::f32, DType::bf16};

TEST(CudaMemory, ZeroCopyAndBack) {
  for (std::int64_t n : kSizes)
    for (DType dtype : {DType::f32, DType::bf16, DType::i32, DType::u8}) {
      const Tensor x = to_device(Tensor::zeros({n}, dtype, kGpu), Device{});
      for (std::byte b : std::span(x.bytes(), x.size_in_bytes())) ASSERT_EQ(b, std::byte{0});
    }
}

TEST(CudaMemory, CopyConverts) {
  for (std::int64_t n : kSizes)
    for (DType from : kFloats)
      for (DType to : kFloats) {
        const Both x = random_both({n}, from, 1, 10);
        Both y = unwritten({n}, to);
        compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) { k.copy(on(y), on(x)); });
      }
}

TEST(CudaMemory, AddKeepsTheSumsType) {
  for (std::int64_t n : kSizes)
    for (DType from : kFloats)
      for (DType to : kFloats) {
        const Both x = random_both({n}, from, 1);
        Both y = random_both({n}, to, 2);
        compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) { k.add(on(y), on(x)); });
      }
}

TEST(CudaMemory, RowsThatStartBetweenSixteenBytes) {
  const Both x = random_both({5, 3}, DType::bf16, 1);
  Both y = unwritten({5, 3}, DType::f32);
  compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) {
    k.zero(on(y));
    Tensor part = on(y).rows(1, 4);
    k.copy(part, on(x).rows(1, 4));
  });
}

TEST(CudaMemory, Scale) {
  for (std::int64_t n : kSizes)
    for (DType dtype : kFloats) {
      const Both factor = both(floats({1}, {0.37f}));
      Both x = random_both({n}, dtype, 3);
      compare({{"x", &x, 0}}, [&](const Kernels& k, auto on) { k.scale(on(x), on(factor)); });
    }
}

}  // namespace
}  // namespace switchyard::test
