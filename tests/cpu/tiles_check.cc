// Tiles against plain loops. Compiled once a level, for its processors, beside tiles of its own (tests/CMakeLists.txt).
#include <fmt/core.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/philox.h"
#include "cpu/tiles.h"

namespace mhmoe::cpu {
namespace {

// Beyond two tiles of the highest kind, and two panels of the widest.
constexpr int64_t kRows = 25, kCols = 70;
constexpr float kNothing = std::numeric_limits<float>::quiet_NaN();

// How a matrix lies in memory: elements between the end of a row and the next, and before the first.
struct Layout {
  bool transposed;
  int64_t gap, offset;
};

// Random numbers of `seen` rows, and not-a-number wherever nothing is to be read.
template <class T>
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, int64_t seen, const Layout& layout, const char* name)
      : layout_(layout),
        ld_((layout.transposed ? rows : cols) + layout.gap),
        memory_(static_cast<size_t>(layout.offset + ld_ * (layout.transposed ? cols : rows)),
                static_cast<T>(kNothing)) {
    const Philox random(0, name);
    for (int64_t r = 0; r < seen; ++r) {
      for (int64_t c = 0; c < cols; ++c) memory_[place(r, c)] = static_cast<T>(2 * random.uniform(r * cols + c) - 1);
    }
  }
  double operator()(int64_t r, int64_t c) const { return static_cast<float>(memory_[place(r, c)]); }
  Stored<T> stored() const { return {memory_.data() + layout_.offset, ld_, layout_.transposed}; }

 private:
  size_t place(int64_t r, int64_t c) const {
    return static_cast<size_t>(layout_.offset + (layout_.transposed ? c * ld_ + r : r * ld_ + c));
  }

  Layout layout_;
  int64_t ld_;
  std::vector<T> memory_;
};

template <class T, class Out>
class Products {
 public:
  // The right operand has more rows than k where it may.
  Products(int64_t k, const Layout& a, const Layout& b)
      : k_(k),
        right_rows_(kPaired<T> && k % 2 != 0 ? k : k + 3),
        a_(kRows, k, kRows, a, "a"),
        b_(right_rows_, kCols, k, b, "b"),
        bias_(1, kCols, 1, {}, "bias"),
        addend_(kRows, kCols, kRows, {}, "addend"),
        before_{untouched(false), untouched(true)},
        name_(fmt::format("inner size {}, left {} + {} + {}, right {} + {}", k, a.transposed ? "transposed" : "plain",
                          a.gap, a.offset, b.transposed ? "transposed" : "plain", b.gap)) {}

  // What is wrong with products of all sizes; empty: nothing. Those of the largest are compared with sums in double,
  // the others with them: an element's bits must not depend on the size.
  std::string check() {
    std::vector<std::vector<Out>> largest;
    for (const bool bias : {false, true}) {
      for (const bool add : {false, true}) {
        if (add && !std::is_same_v<Out, float>) continue;
        largest.push_back(multiplied(kRows, kCols, bias, add));
        std::string wrong = against_double(largest.back(), bias, add);
        if (!wrong.empty()) return wrong;
      }
    }
    const auto kinds = static_cast<int64_t>(largest.size());
    for (int64_t m = 1; m <= kRows; ++m) {
      for (int64_t n = 1; n <= kCols; ++n) {
        const int64_t kind = (3 * m + n) % kinds;
        const bool bias = kind >= kinds / 2, add = std::is_same_v<Out, float> && kind % 2 != 0;
        if (!same_part(multiplied(m, n, bias, add), largest[static_cast<size_t>(kind)], m, n, add)) {
          return fmt::format("[{}, {}], {}, bias {}, added {}: other bits than in the largest product", m, n, name_,
                             bias, add);
        }
      }
    }
    return {};
  }

 private:
  static constexpr int64_t kLd = kCols + 5;

  // The memory that products go to, a row and some columns more than the largest touches: what it holds before.
  std::vector<Out> untouched(bool add) const {
    std::vector<Out> out(static_cast<size_t>((kRows + 1) * kLd), static_cast<Out>(-7.0f));
    for (int64_t r = 0; add && r < kRows; ++r) {
      Out* row = out.data() + r * kLd;
      for (int64_t c = 0; c < kCols; ++c) row[c] = static_cast<Out>(static_cast<float>(addend_(r, c)));
    }
    return out;
  }

  std::vector<Out> multiplied(int64_t m, int64_t n, bool bias, bool add) {
    std::vector<Out> out = before_[add ? 1 : 0];
    Ahead ahead;
    if ((m + n) % 2 != 0) ahead.add(out.data(), m, n, kLd);
    const Left<T> left = left_operand(left_room_, a_.stored(), m, k_);
    const Right<T> right = right_operand(right_room_, b_.stored(), right_rows_, n);
    multiply<T, Out>({out.data(), kLd, bias ? bias_.stored().data : nullptr, add}, left, right, m, n, k_, ahead);
    return out;
  }

  std::string against_double(const std::vector<Out>& out, bool bias, bool add) const {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        const double more = (bias ? bias_(0, c) : 0), held = (add ? addend_(r, c) : 0);
        double sum = more + held, size = std::abs(more) + std::abs(held);
        for (int64_t p = 0; p < k_; ++p) {
          sum += a_(r, p) * b_(p, c);
          size += std::abs(a_(r, p) * b_(p, c));
        }
        const double allowed =
            0x1p-23 * static_cast<double>(k_ + 4) * size + (std::is_same_v<Out, bfloat16> ? 0x1p-8 * std::abs(sum) : 0);
        const double got = static_cast<float>(out[static_cast<size_t>(r * kLd + c)]);
        if (!(std::abs(got - sum) <= allowed)) {
          return fmt::format("{}, bias {}, added {}: at ({}, {}) {} instead of {}", name_, bias, add, r, c, got, sum);
        }
      }
    }
    return {};
  }

  // Whether `out` has the first m rows and n columns of `whole`, and around them what it had before.
  bool same_part(const std::vector<Out>& out, const std::vector<Out>& whole, int64_t m, int64_t n, bool add) const {
    for (int64_t r = 0; r <= kRows; ++r) {
      const int64_t row = r * kLd, cols = r < m ? n : 0;
      const Out* before = before_[add ? 1 : 0].data() + row;
      if (std::memcmp(out.data() + row, whole.data() + row, static_cast<size_t>(cols) * sizeof(Out)) != 0 ||
          std::memcmp(out.data() + row + cols, before + cols, static_cast<size_t>(kLd - cols) * sizeof(Out)) != 0) {
        return false;
      }
    }
    return true;
  }

  int64_t k_, right_rows_;
  Matrix<T> a_, b_;
  Matrix<float> bias_, addend_;
  std::array<std::vector<Out>, 2> before_;  // added to: no, yes
  std::string name_;
  Scratch left_room_, right_room_;
};

template <class T, class Out>
std::string check_products() {
  // Pairs of bf16 are read where they lie if rows begin at whole ones.
  constexpr Layout kLeft[] = {{false, 3, 0}, {false, 4, 0}, {false, 4, 1}, {true, 3, 0}};
  constexpr Layout kRight[] = {{false, 3, 0}, {true, 3, 0}};
  for (const int64_t k : {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 40, 67}) {
    for (const Layout& a : kLeft) {
      for (const Layout& b : kRight) {
        std::string wrong = Products<T, Out>(k, a, b).check();
        if (!wrong.empty()) return wrong;
      }
    }
  }
  return {};
}

}  // namespace
}  // namespace mhmoe::cpu

#define MHMOE_CONCAT_(a, b) a##b
#define MHMOE_CONCAT(a, b) MHMOE_CONCAT_(a, b)

extern "C" void MHMOE_CONCAT(mhmoe_check_tiles_, MHMOE_CPU_LEVEL)(std::string& wrong) {
  using mhmoe::bfloat16;
  using mhmoe::cpu::check_products;
  wrong = check_products<float, float>();
  if (wrong.empty()) wrong = check_products<bfloat16, float>();
  if (wrong.empty()) wrong = check_products<bfloat16, bfloat16>();
}
