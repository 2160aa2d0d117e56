// Instructions that CUDA C++ has no name for (PTX ISA; sm_80 and later). The emulated build (tests/cuda) puts its own
// file in this one's place.
//
// How a warp's lanes hold 16-bit matrices in 32-bit registers: lane l is row g = l / 4 and column pair t = l % 4 of an
// 8x8 matrix; the register holds elements (g, 2t), in its low half, and (g, 2t + 1).
#pragma once

#include <cstdint>

namespace mhmoe::cuda {

// d += a b on a warp: a is 16x16 bf16, b 16x8 bf16, d 16x8 f32. All lanes must call.
// a[0..3]: the 8x8 quarters (rows, columns) = (0-7, 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15).
// b[0..1]: the transposes of its upper and lower half, so g is the column of b and 2t, 2t + 1 are rows.
// d[0..3]: elements (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Address of shared memory as instructions take it.
__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Loads 8x8 matrices of 16-bit elements from shared memory, r[i] from matrix i, the _trans forms its transpose. Lane l
// brings the address of row l % 8 of matrix l / 8: 16 bytes, 16-byte aligned. All lanes must call; for two matrices
// only the addresses of lanes 0 to 15 count.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ inline void ldmatrix_x2(uint32_t (&r)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(shared_row))
               : "memory");
}
__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(shared_row))
               : "memory");
}

// Begins to copy 16 bytes from global to shared memory, both 16-byte aligned; 16 zero bytes, and nothing read, when
// not `valid`. The bytes are there for this thread after cp_async_wait, for others after a barrier that follows it.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}
// The copies that this thread has begun since its last commit become a group.
__device__ inline void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kPending of this thread's groups, the latest, are unfinished.
template <int kPending>
__device__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 2^x to about 22 bits in one instruction; what is below the smallest normal number is 0, as 2^-infinity.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace mhmoe::cuda
