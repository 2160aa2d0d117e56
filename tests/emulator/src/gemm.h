// The matrix product that stands for cuBLAS's: column-major, f32 or bf16 elements, f32 sums.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

enum class Element { kF32, kBf16 };

// A column-major matrix, or the transpose of one.
struct Operand {
  const void* data;
  int64_t stride;  // elements from a stored column to the next
  bool transposed;
};

// c[m, n] = alpha op(a)[m, k] op(b)[k, n] + beta c; c is not read when beta is 0. Every element is summed over k from
// the first on, whatever m and n are, so a row's bits do not depend on the other rows.
struct Product {
  int64_t m, n, k;
  float alpha, beta;
  Operand a, b;
  void* c;
  int64_t c_stride;
  Element in, out;
  // Two liberties that cuBLAS takes unless it is told not to, so that a program that must not allow them is found out:
  bool round_to_tf32 = false;  // f32 operands lose 13 bits
  bool reduce_narrow = false;  // partial sums are rounded to the output's type
};
void multiply(const Product& product);

}  // namespace emulator
