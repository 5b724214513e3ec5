// The kernel of linear with instructions that few CPUs have, emulated, against plain loops over odd
// sizes. Prints what is wrong and exits with 1.
#include "halves.h"
#include "tiles.h"
//
#include <limits>
#include <random>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/kernels/linear.cpp"
#include "cpu/kernels/matmul_rows.cpp"
#include "ops/_product_rate.h"

namespace honed {

namespace {

using cpu::HONED_LEVEL::linear;
std::mt19937 generator(1);

int integer(int low, int high) { return low + int(generator() % unsigned(high - low + 1)); }
float normal() {
  static std::normal_distribution<float> of;
  return of(generator);
}

float value_of(bf16 x) {
  uint32_t bits = uint32_t{x.bits} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
bf16 to_bf16_exact(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return {uint16_t(bits >> 16)};
}
double value_of(f16 x) { return emulated::value_of({x.bits}); }
f16 to_f16_rounded(double x) { return {emulated::half_of(emulated::rounded(x)).bits}; }

struct Shape {
  int64_t m, n, k;
  bool gated = false;
};

void check(bool holds, const char* what, const Shape& s, int64_t row, int64_t column, double got,
           double expected) {
  if (holds) return;
  std::printf("%s: (%ld, %ld, %ld)%s at [%ld, %ld]: %.9g, expected %.9g\n", what, s.m, s.n, s.k,
              s.gated ? " gated" : "", row, column, got, expected);
  std::exit(1);
}

// Rows with a gap after each that holds `gap`; none after the last.
template <class T>
struct Matrix {
  Matrix(int64_t rows, int64_t cols, T gap)
      : stride(cols + 3), data(size_t(rows ? (rows - 1) * stride + cols : 0), gap), cols(cols) {}
  T& at(int64_t row, int64_t col) { return data[size_t(row * stride + col)]; }
  int64_t stride;
  std::vector<T> data;
  int64_t cols;
};

PackedView view_of(WeightKind kind, const Shape& s, int64_t k_padded, int64_t panel_bytes,
                   const std::vector<uint8_t>& data) {
  PackedView w{};
  w.kind = kind;
  w.gated = s.gated;
  w.group = 32;
  w.n = s.n;
  w.k = s.k;
  w.k_padded = k_padded;
  w.panels = (s.n + kPanel - 1) / kPanel * (s.gated ? 2 : 1);
  w.panel_bytes = panel_bytes;
  w.data = data.data();
  return w;
}
// Of output n of half h, in panels.
int64_t panel_of(const Shape& s, int64_t h, int64_t n) {
  return s.gated ? n / kPanel * 2 + h : n / kPanel;
}

// y by the kernel, in two calls where there are several items.
std::vector<float> run(const LinearArgs& given, const Shape& s) {
  std::vector<float> y(size_t(s.m * s.n));
  LinearArgs args = given;
  args.to = {y.data(), s.n, 1, DType::f32};
  int64_t units = (s.n + kPanel - 1) / kPanel,
          items = units * ((s.m + kBlockRows - 1) / kBlockRows);
  emulated::configurations = emulated::products = emulated::half_products = 0;
  linear(args, 0, items / 2);
  linear(args, items / 2, items);
  bool tiles = args.rows.way == Way::tiles;
  int calls = items > 1 ? 2 : 1;  // an empty one needs no tiles
  check(emulated::configurations == calls * tiles, "configurations", s, 0, 0,
        emulated::configurations, calls * tiles);
  check(!emulated::configured, "tiles released", s, 0, 0, 1, 0);
  check((emulated::products > 0) == (tiles && s.k > 0), "the products of tiles", s, 0, 0,
        emulated::products, tiles);
  bool halves = args.rows.way == Way::halves;
  check((emulated::half_products > 0) == (halves && s.k > 0), "products of halves", s, 0, 0,
        emulated::half_products, halves);
  return y;
}

// value(row, output, half) -> {sum, largest error}
template <class F>
void compare(const char* what, const std::vector<float>& y, const Shape& s, F&& value) {
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t n = 0; n < s.n; ++n) {
      auto [sum, error] = value(m, n, 0);
      if (s.gated) {  // only of exact sums
        auto [up, none] = value(m, n, 1);
        sum = float(sum) * float(up);
      }
      double got = y[size_t(m * s.n + n)];
      check(std::abs(got - sum) <= error, what, s, m, n, got, sum);
    }
}

struct Sum {
  double value, error;
};

// exact: small integers, whose sums have no error
void test_bf16(const Shape& s, bool exact) {
  const int64_t pairs = (s.k + 1) / 2, halves = s.gated ? 2 : 1;
  Matrix<bf16> x(s.m, s.k, bf16{0x7fc0});
  Matrix<bf16> w(halves * s.n, s.k, bf16{0});
  auto fill = [&](Matrix<bf16>& t, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < s.k; ++k)
        t.at(i, k) = to_bf16_exact(exact ? float(integer(-9, 9)) : normal());
  };
  fill(x, s.m);
  fill(w, halves * s.n);
  std::vector<uint8_t> packed(size_t(((s.n + kPanel - 1) / kPanel) * halves * pairs * kPanel * 4));
  for (int64_t h = 0; h < halves; ++h)
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t k = 0; k < s.k; ++k) {
        int64_t at = ((panel_of(s, h, n) * pairs + k / 2) * kPanel + n % kPanel) * 2 + k % 2;
        std::memcpy(packed.data() + 2 * at, &w.at(h * s.n + n, k), 2);
      }
  LinearArgs args{};
  args.w = view_of(WeightKind::bf16, s, s.k, pairs * kPanel * 4, packed);
  args.rows = {x.data.data(), x.stride};
  args.rows.way = Way::tiles;
  args.m = s.m;
  // Roundings on a product's way: 16 FMAs, even and odd, a tile to the rest, a chunk to the rest.
  const double roundings = 16 + 1 + std::ceil(s.k / 32.0) + std::ceil(s.k / 512.0);
  compare("bf16 by tiles", run(args, s), s, [&](int64_t m, int64_t n, int64_t h) {
    double sum = 0, size = 0;
    for (int64_t k = 0; k < s.k; ++k) {
      double product = double(value_of(x.at(m, k))) * value_of(w.at(h * s.n + n, k));
      sum += product;
      size += std::abs(product);
    }
    return Sum{sum, exact ? 0 : size * roundings * 0x1p-24};
  });
}

void test_int8(const Shape& s, int64_t group) {
  const int64_t halves = s.gated ? 2 : 1;
  const int64_t padded =
      group == kLongestGroup ? (s.k + 3) / 4 * 4 : (s.k + group - 1) / group * group;
  const int64_t groups = (padded + group - 1) / group;
  Matrix<int8_t> x(s.m, padded, int8_t{85});
  std::vector<uint8_t> packed(size_t((s.n + kPanel - 1) / kPanel * halves * padded * kPanel));
  for (uint8_t& byte : packed) byte = uint8_t(integer(0, 255));
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t k = 0; k < padded; ++k)
      x.at(m, k) = int8_t(k < s.k ? integer(0, 9) ? integer(-128, 127) : -127 : 0);
  std::vector<float> scale(size_t(s.m * groups));
  std::vector<int32_t> sum(scale.size(), 0);
  for (int64_t i = 0; i < s.m * groups; ++i) {
    scale[size_t(i)] = std::ldexp(1.0f, integer(-3, 3));
    for (int64_t k = i % groups * group; k < padded && k < (i % groups + 1) * group; ++k)
      sum[size_t(i)] -= 128 * x.at(i / groups, k);
  }
  LinearArgs args{};
  args.w = view_of(WeightKind::int8, s, padded, padded * kPanel, packed);
  args.w.group = int(group);
  args.rows = {nullptr, 0, x.data.data(), x.stride, scale.data(), sum.data(), Way::tiles};
  args.m = s.m;
  compare("int8 by tiles", run(args, s), s, [&](int64_t m, int64_t n, int64_t h) {
    float total = 0;
    for (int64_t g = 0; g < groups; ++g) {
      int32_t part = 0;
      for (int64_t k = g * group; k < padded && k < (g + 1) * group; ++k) {
        int64_t at = ((panel_of(s, h, n) * (padded / 4) + k / 4) * kPanel + n % kPanel) * 4 + k % 4;
        part += x.at(m, k) * (packed[size_t(at)] - 128);
      }
      total += float(part) * scale[size_t(m * groups + g)];  // a power of two
    }
    return Sum{total, 0};
  });
}

// Values whose sums are exact, any, or whose float16 sums lose all but the first product.
enum class Fill { exact, any, lost };

void test_halves(const Shape& s, Fill fill) {
  const int64_t halves = s.gated ? 2 : 1;
  Matrix<f16> x(s.m, s.k, f16{0x7e00});
  Matrix<f16> w(halves * s.n, s.k, f16{0});
  auto value = [&](int64_t k) {
    if (fill == Fill::lost) return k ? 0x1p-11 : 1.0;
    return fill == Fill::exact ? integer(-7, 7) : double(normal());
  };
  for (int64_t k = 0; k < s.k; ++k) {
    for (int64_t m = 0; m < s.m; ++m)
      x.at(m, k) = to_f16_rounded(fill == Fill::lost ? 1 : value(k));
    for (int64_t n = 0; n < halves * s.n; ++n) w.at(n, k) = to_f16_rounded(value(k));
  }
  std::vector<uint8_t> packed(size_t(((s.n + kPanel - 1) / kPanel) * halves * s.k * kPanel * 2));
  for (int64_t h = 0; h < halves; ++h)
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t k = 0; k < s.k; ++k) {
        int64_t at = (panel_of(s, h, n) * s.k + k) * kPanel + n % kPanel;
        std::memcpy(packed.data() + 2 * at, &w.at(h * s.n + n, k), 2);
      }
  LinearArgs args{};
  args.w = view_of(WeightKind::f16, s, s.k, s.k * kPanel * 2, packed);
  args.rows = {x.data.data(), x.stride};
  args.rows.way = Way::halves;
  args.m = s.m;
  compare("f16 by halves", run(args, s), s, [&](int64_t m, int64_t n, int64_t h) {
    double sum = 0, size = 0;
    for (int64_t k = 0; k < s.k; ++k) {
      double product = value_of(x.at(m, k)) * value_of(w.at(h * s.n + n, k));
      sum += product;
      size += std::abs(product);
    }
    // The bound of ops/linear.h, and a rounding of f32 for every sum of a few inputs.
    const double u = kHalfSum * 0x1p-11, sums = std::ceil(double(s.k) / kHalfSum) + 3;
    double error = size * u / (1 - u) + sums * (kHalfSum * 0x1p-25 + size * (1 + u) * 0x1p-24);
    return Sum{sum, fill == Fill::exact ? 0 : error};
  });
}

// Rows of f16 are arranged as if they were bf16: every number keeps its bits, NaN stays NaN.
void test_rows_of_f16() {
  constexpr int64_t kSide = 256, kUsed = kSide - 1;  // not whole vectors
  std::vector<f16> from(kSide * kSide), to(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = {uint16_t(i)};
  for (bool turn : {false, true}) {
    cpu::HONED_LEVEL::matmul_rows({from.data(), DType::f16, kUsed, kUsed, turn ? 1 : kSide,
                                   turn ? kSide : 1, to.data(), kSide, true},
                                  0, kSide / kTurned);
    for (int64_t i = 0; i < kUsed; ++i)
      for (int64_t j = 0; j < kUsed; ++j) {
        int bits = from[size_t(turn ? j * kSide + i : i * kSide + j)].bits;
        int got = to[size_t(i * kSide + j)].bits;
        bool nan = (bits & 0x7fff) > 0x7c00;
        check(got == bits || (nan && (got & 0x7fff) > 0x7c00), "f16 rows", {}, i, j, got, bits);
      }
  }
}

void test_ways() {
  const double never = std::numeric_limits<double>::infinity();
  const Shape none{};
  auto expect = [&](Way got, Way expected) {
    check(got == expected, "way", none, 0, 0, double(got), double(expected));
  };
  ProductRates old{1, never, never, 1, never, never};
  for (int64_t m : {1, 16, 1000}) {
    expect(way_of_bf16(old, m), Way::plain);
    expect(way_of_int8(old, m), Way::plain);
  }
  ProductRates slow_dots{1, never, 3, 1, never, never}, dots{1, never, 1, 1, never, never};
  expect(way_of_bf16(slow_dots, 64), Way::plain);
  expect(way_of_bf16(dots, 64), Way::dots);
  // A tile as fast as 4 rows of dots: it pays from the fifth, and 17 rows are two tiles.
  ProductRates tiles{1, 1, 1, 1, 128, 128};
  for (int64_t m : {1, 2, 4, 5, 16, 17, 1000}) {
    expect(way_of_bf16(tiles, m), m > 4 ? Way::tiles : Way::dots);
    expect(way_of_int8(tiles, m), m > 4 ? Way::tiles : Way::plain);
  }
  ProductRates full_tiles{1, 1, 1, 1, 500, 500};
  for (int64_t m : {15, 16, 17, 31, 32})
    expect(way_of_int8(full_tiles, m), m % 16 == 0 ? Way::tiles : Way::plain);
}

}  // namespace

namespace cpu {  // what the choice of a way asks for, unused here
const KernelTable& kernels() { std::abort(); }
const char* level() { return "emulated"; }
}  // namespace cpu

void run_all() {
  test_ways();
  test_rows_of_f16();
  for (int64_t m : {1, 2, 7, 15, 16, 17, 31, 32, 33, 47, 64, 65, 168, 169, 339})
    for (int64_t k : {0, 1, 2, 31, 32, 33, 64, 95, 510, 512, 513, 545, 1100}) {
      if (m > 65 && k != 33 && k != 545) continue;
      Shape s{m, m % 2 ? 33 : k % 2 ? 70 : 32, k, m % 3 == 1 && k % 2 == 1};
      test_bf16(s, true);
      test_halves(s, Fill::exact);
      s.gated = false;
      test_bf16(s, false);
      test_halves(s, Fill::any);
    }
  for (int64_t m : {1, 2, 3, 6, 14}) test_halves({m, 32, 256}, Fill::lost);
  for (int64_t m : {1, 3, 16, 17, 40, 170})
    for (int64_t k : {1, 33, 64, 300, 1056, 2113})
      for (int64_t group : {256, 288, 1056, int(kLongestGroup)})
        if (m < 100 || k < 400) test_int8({m, k % 2 ? 33 : 64, k, m == 17}, group);
}

}  // namespace honed

int main() {
  honed::run_all();
  std::puts("all right");
}
