// Exact derivatives of plain loops: Im f(x + i h) / h with a tiny h loses nothing to subtraction (Squire and Trapp,
// 1998).
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

namespace mhmoe::test {

using Complex = std::complex<double>;

// d f / d x[i] for every i; f takes a vector of Complex and returns a Complex, and branches on real parts only.
template <class F>
std::vector<double> complex_step(const std::vector<double>& x, F f) {
  constexpr double kStep = 1e-40;
  std::vector<Complex> point(x.begin(), x.end());
  std::vector<double> gradient;
  for (Complex& coordinate : point) {
    const Complex kept = coordinate;
    coordinate += Complex(0, kStep);
    gradient.push_back(f(point).imag() / kStep);
    coordinate = kept;
  }
  return gradient;
}

// The error function by a series of terms of one sign, good for |z| below about 6.
inline Complex erf(Complex z) {
  Complex term = z, sum = z;
  for (int n = 1; n < 200; ++n) {
    term *= 2.0 * z * z / (2.0 * n + 1);
    sum += term;
  }
  return 1.1283791670955126 * std::exp(-z * z) * sum;
}

}  // namespace mhmoe::test
