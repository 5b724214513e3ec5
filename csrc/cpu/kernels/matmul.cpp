// Products of operands where they lie: rows of b as weights of a tile, or columns of b in dot
// products.
#include "ops/matmul.h"

#include "cpu/kernels/linear_float.h"
#include "cpu/kernels/product_finish.h"
#include "cpu/simd/transpose.h"

HONED_BEGIN_LEVEL

namespace {

// Panels of b where it lies: one or two rows take more vectors of a row of b at once.
template <class S, class T>
HONED_INLINE void tiles_over(const T* b, int64_t b_row, int64_t k, const S* a, int64_t a_row,
                             int64_t a_col, int rows, int64_t channels, bool add, S* out) {
  constexpr int kWider = sizeof(vf) == 64 ? 8 : 4, kStep = kWider * Simd<S>::lanes;
  int64_t c = 0;
  if constexpr (kStep >= kPanel)
    for (; rows <= 2 && c + kStep <= channels; c += kStep) {
      S* to = out + c * kMatmulRows;
      if (rows == 1)
        float_tile<1, S, T, kWider>(b + c, b_row, k, a, a_row, a_col, add, to);
      else
        float_tile<2, S, T, kWider>(b + c, b_row, k, a, a_row, a_col, add, to);
    }
  for (; c < channels; c += kPanel)
    float_tiles<kRows>(b + c, b_row, k, a, a_row, a_col, rows, kPanel, add, out + c * kMatmulRows);
}

// b has unit column stride: a run of kRun of its rows serves all panels of the item, so that few
// pages are in use at a time.
template <class S, class T>
void over_rows(const MatmulArgs& p, int64_t row, int rows, int64_t first, int64_t last, S* out) {
  constexpr int64_t kRun = 64;
  const S* a = static_cast<const S*>(p.a) + row * p.a_row;
  const T* b = static_cast<const T*>(p.b) + first;
  const int64_t channels = last - first, whole = channels / kPanel * kPanel;
  for (int64_t k = 0; k < p.k || k == 0; k += kRun) {
    int64_t run = p.k - k < kRun ? p.k - k : kRun;
    const T* w = b + k * p.b_row;
    tiles_over(w, p.b_row, run, a + k * p.a_col, p.a_row, p.a_col, rows, whole, k > 0, out);
    if (whole < channels) {
      alignas(64) S edge[kRun * kPanel] = {};
      for (int64_t i = 0; i < run; ++i)
        for (int64_t c = whole; c < channels; ++c)
          edge[i * kPanel + c - whole] = scalar(w[i * p.b_row + c]);
      float_tiles<kRows>(static_cast<const S*>(edge), kPanel, run, a + k * p.a_col, p.a_row,
                         p.a_col, rows, int(channels - whole), k > 0, out + whole * kMatmulRows);
    }
  }
}

HONED_INLINE void reduce(const vf* sums, int count, float* to) {
  alignas(16) float four[4];
  vf none = zero();
  _mm_store_ps(four, reduce_four(sums[0], count > 1 ? sums[1] : none, count > 2 ? sums[2] : none,
                                 count > 3 ? sums[3] : none));
  for (int i = 0; i < count; ++i) to[i] = four[i];
}
HONED_INLINE void reduce(const vd* sums, int count, double* to) {
  for (int i = 0; i < count; ++i) {
    double sum = 0;
    for (int j = 0; j < kDoubles; ++j) sum += sums[i][j];
    to[i] = sum;
  }
}

// How a vector of products along k is added: f32 (f64) values, or bf16 pairs by their instruction.
template <class S, class T>
struct Multiplied {
  using V = typename Simd<S>::type;
  static constexpr int step = Simd<S>::lanes;
  HONED_INLINE static V get(const T* p) { return load(p); }
  HONED_INLINE static V get(const T* p, int n) { return load(p, n); }
  HONED_INLINE static V add(V a, V b, V sum) { return fmadd(a, b, sum); }
};
#ifdef __AVX512BF16__
struct PairsMultiplied {
  using V = vi;
  static constexpr int step = 2 * kLanes;
  HONED_INLINE static vi get(const bf16* p) { return load_int(p); }
  HONED_INLINE static vi get(const bf16* p, int n) {
    return _mm512_maskz_loadu_epi16(__mmask32((uint64_t{1} << n) - 1), p);
  }
  HONED_INLINE static vf add(vi a, vi b, vf sum) { return dot2(sum, a, b); }
};
#endif

// out[m][c] (+)= sum_k a[m][k] b[c][k], both with unit stride along k
template <int MR, int NR, class How, class S, class T>
[[gnu::noinline]] void dot_tile(const T* a, int64_t a_row, const T* b, int64_t b_col, int64_t k,
                                bool add, S* out) {
  typename Simd<S>::type sum[MR][NR];
  for (int m = 0; m < MR; ++m)
    for (int c = 0; c < NR; ++c) sum[m][c] = set1(S(0));
  auto step = [&](int64_t i, auto get) __attribute__((always_inline)) {
    typename How::V right[NR];
    for (int c = 0; c < NR; ++c) right[c] = get(b + c * b_col + i);
    for (int m = 0; m < MR; ++m) {
      typename How::V left = get(a + m * a_row + i);
      for (int c = 0; c < NR; ++c) sum[m][c] = How::add(left, right[c], sum[m][c]);
    }
  };
  int64_t i = 0;
  for (; i + How::step <= k; i += How::step)
    step(i, [](const T* p) __attribute__((always_inline)) { return How::get(p); });
  if (i < k) {
    int n = int(k - i);
    step(i, [n](const T* p) __attribute__((always_inline)) { return How::get(p, n); });
  }
  for (int m = 0; m < MR; ++m) {
    S row[4];
    reduce(sum[m], NR, row);
    for (int c = 0; c < NR; ++c) out[m * kPanel + c] = (add ? out[m * kPanel + c] : 0) + row[c];
  }
}

#if defined(__AVX512F__)
constexpr int kDotRows = 4, kDotCols = 4;
#else
constexpr int kDotRows = 4, kDotCols = 2;
#endif

// a and b have unit stride along k.
template <class How, class S, class T>
void over_columns(const MatmulArgs& p, int64_t row, int rows, int64_t first, int64_t last, S* out) {
  constexpr int64_t kRun = 1024;
  const T* a = static_cast<const T*>(p.a) + row * p.a_row;
  for (int64_t k = 0; k < p.k || k == 0; k += kRun) {
    int64_t run = p.k - k < kRun ? p.k - k : kRun;
    for (int64_t n = first; n < last; n += kDotCols) {
      const T* b = static_cast<const T*>(p.b) + n * p.b_col + k;
      S* to = out + (n - first) / kPanel * kPanel * kMatmulRows + (n - first) % kPanel;
      static_assert(kPanel % kDotCols == 0);
      with_rows<kDotCols>(int(last - n < kDotCols ? last - n : kDotCols), [&](auto cols) {
        for_tiles<kDotRows>(rows, [&](int r, auto tile) {
          dot_tile<decltype(tile)::count, decltype(cols)::count, How, S, T>(
              a + r * p.a_row + k, p.a_row, b, p.b_col, run, k > 0, to + r * kPanel);
        });
      });
    }
  }
}

// True where the dot instruction of bf16 did it.
[[maybe_unused]] bool over_pairs([[maybe_unused]] const MatmulArgs& p, [[maybe_unused]] int64_t row,
                                 [[maybe_unused]] int rows, [[maybe_unused]] int64_t first,
                                 [[maybe_unused]] int64_t last, [[maybe_unused]] float* out) {
#ifdef __AVX512BF16__
  if (p.bf16) over_columns<PairsMultiplied, float, bf16>(p, row, rows, first, last, out);
  return p.bf16;
#else
  return false;
#endif
}
bool over_pairs(const MatmulArgs&, int64_t, int, int64_t, int64_t, double*) { return false; }

}  // namespace

// Items: kMatmulPanels panels of columns times kMatmulRows rows; rows are the slower index.
void matmul(const MatmulArgs& p, int64_t begin, int64_t end) {
  constexpr int64_t kColumns = kMatmulPanels * kPanel;
  const int64_t groups = (p.n + kColumns - 1) / kColumns;
  auto all = [&](auto t, auto s) {
    using T = typename decltype(t)::type;
    using S = typename decltype(s)::type;
    alignas(64) S out[kMatmulRows * kColumns];
    for (int64_t item = begin; item < end; ++item) {
      int64_t row = item / groups * kMatmulRows, first = item % groups * kColumns;
      int64_t last = first + kColumns < p.n ? first + kColumns : p.n;
      int rows = int(p.m - row < kMatmulRows ? p.m - row : kMatmulRows);
      if (!p.dots)
        over_rows<S, T>(p, row, rows, first, last, out);
      else if (!over_pairs(p, row, rows, first, last, out))
        over_columns<Multiplied<S, T>, S, T>(p, row, rows, first, last, out);
      for (int64_t n = first; n < last; n += kPanel) {
        S* sums = out + (n - first) * kMatmulRows;
        const S* bias = p.to.bias ? static_cast<const S*>(p.to.bias) + n : nullptr;
        scale_and_bias(p.to, row, rows, nullptr, bias, sums);
        finish_any<S>(p.to, row, rows, n, int(last - n < kPanel ? last - n : kPanel), sums,
                      nullptr);
      }
    }
  };
  if (p.dtype == DType::f64)
    all(Tag<double>{}, Tag<double>{});
  else
    visit_float(p.dtype, [&](auto t) { all(t, Tag<float>{}); });
}

HONED_END_LEVEL
