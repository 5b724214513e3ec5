// Strided operands into the layouts of the product kernels: rows of f32 (f64) with unit stride, and
// panels [k][channel].
#include "cpu/simd/transpose.h"
#include "cpu/simd/vec_f64.h"
#include "cpu/visit.h"
#include "ops/matmul.h"

HONED_BEGIN_LEVEL

namespace {

template <class T, class S>
HONED_INLINE void put(S* to, T value) {
  *to = scalar(value);
}
HONED_INLINE void put(bf16* to, bf16 value) { *to = value; }

// to[i][j] = from[i * row + j] for a block of vectors
template <class T, class S>
void copy_rows(const T* from, int64_t row, int64_t rows, int64_t count, S* to, int64_t to_row) {
  constexpr int kVector = Simd<S>::lanes;
  for (int64_t r = 0; r < rows; ++r) {
    const T* p = from + r * row;
    S* q = to + r * to_row;
    int64_t i = 0;
    for (; i + kVector <= count; i += kVector) store(q + i, load(p + i));
    for (; i < count; ++i) put(q + i, p[i]);
  }
}

// to[j][i] = from[i * row + j], rows x count
template <class T, class S>
void turn_rows(const T* from, int64_t row, int64_t rows, int64_t count, S* to, int64_t to_row) {
  int64_t done = 0;
  if constexpr (sizeof(S) <= 4) {
    for (; done + kLanes <= rows; done += kLanes) {
      const T* p = from + done * row;
      int64_t j = 0;
      for (; j + kLanes <= count; j += kLanes) {
        vf block[kLanes];
        for (int i = 0; i < kLanes; ++i) block[i] = load(p + i * row + j);
        transpose(block);
        for (int i = 0; i < kLanes; ++i) store(to + (j + i) * to_row + done, block[i]);
      }
      for (; j < count; ++j)
        for (int i = 0; i < kLanes; ++i) put(to + j * to_row + done + i, p[i * row + j]);
    }
  }
  for (int64_t j = 0; j < count; ++j)
    for (int64_t i = done; i < rows; ++i) put(to + j * to_row + i, from[i * row + j]);
}

// to[i][j] = from[i * row + j * col]
template <class T, class S>
void arrange(const T* from, int64_t row, int64_t col, int64_t rows, int64_t count, S* to,
             int64_t to_row) {
  if (col == 1) return copy_rows(from, row, rows, count, to, to_row);
  if (row == 1) return turn_rows(from, col, count, rows, to, to_row);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < count; ++j) put(to + i * to_row + j, from[i * row + j * col]);
}

// bf16 pairs of rows i and i + 1; `rows` may be odd.
void pair_rows(const bf16* from, int64_t row, int64_t col, int64_t rows, int64_t count, Pair* to) {
  if (row == 1 && col % 2 == 0) {  // pairs as they lie, turned like floats
    const float* pairs = reinterpret_cast<const float*>(from);
    turn_rows(pairs, col / 2, count, rows / 2, reinterpret_cast<float*>(to), kPanel);
  } else if (col == 1) {
    for (int64_t i = 0; i + 2 <= rows; i += 2)
      for_lanes(count, [&](int64_t c, int n) {
        vi pairs = pairs_of(load(from + i * row + c, n), load(from + (i + 1) * row + c, n));
        store(reinterpret_cast<float*>(to + i / 2 * kPanel + c), as_float(pairs), n);
      });
  } else {
    for (int64_t i = 0; i + 2 <= rows; i += 2)
      for (int64_t c = 0; c < count; ++c)
        to[i / 2 * kPanel + c] = {{from[i * row + c * col], from[(i + 1) * row + c * col]}};
  }
  for (int64_t c = 0; rows % 2 && c < count; ++c)
    to[rows / 2 * kPanel + c] = {{from[(rows - 1) * row + c * col], bf16{0}}};
}

template <class F>
void visit(DType dtype, F&& body) {
  if (dtype == DType::f64)
    body(Tag<double>{}, Tag<double>{});
  else
    visit_float(dtype, [&](auto t) { body(t, Tag<float>{}); });
}

}  // namespace

// Items: blocks of kTurned rows, so that columns are turned in whole vectors.
void matmul_rows(const MatmulArrangeArgs& a, int64_t begin, int64_t end) {
  int64_t row = begin * kTurned, stop = end * kTurned < a.rows ? end * kTurned : a.rows;
  auto some = [&](auto t, auto s) {
    using T = typename decltype(t)::type;
    using S = typename decltype(s)::type;
    constexpr int64_t kRun = 64;  // columns at a time: few rows of a turned matrix, in long runs
    const int64_t run = a.col == 1 ? a.cols : kRun;
    for (int64_t k = 0; k < a.cols; k += run)
      for (int64_t r = row; r < stop; r += kTurned) {
        int64_t rows = stop - r < kTurned ? stop - r : kTurned;
        int64_t count = a.cols - k < run ? a.cols - k : run;
        arrange(static_cast<const T*>(a.from) + r * a.row + k * a.col, a.row, a.col, rows, count,
                static_cast<S*>(a.to) + r * a.to_row + k, a.to_row);
      }
  };
  if (a.narrow)
    some(Tag<bf16>{}, Tag<bf16>{});
  else
    visit(a.dtype, some);
}

// Items: panels of kPanel columns. A few inputs of all panels at a time: rows that lie far apart
// are read in long runs.
void matmul_panels(const MatmulArrangeArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kRun = 64;
  const int64_t pairs = (a.rows + 1) / 2;
  for (int64_t k = 0; a.narrow && k < a.rows; k += kRun)
    for (int64_t panel = begin; panel < end; ++panel) {
      int64_t run = a.rows - k < kRun ? a.rows - k : kRun, left = a.cols - panel * kPanel;
      Pair* to = static_cast<Pair*>(a.to) + (panel * pairs + k / 2) * kPanel;
      const bf16* from = static_cast<const bf16*>(a.from) + k * a.row + panel * kPanel * a.col;
      if (left < kPanel) __builtin_memset(to, 0, size_t((run + 1) / 2 * kPanel) * sizeof(Pair));
      pair_rows(from, a.row, a.col, run, left < kPanel ? left : kPanel, to);
    }
  if (a.narrow) return;
  visit(a.dtype, [&](auto t, auto s) {
    using T = typename decltype(t)::type;
    using S = typename decltype(s)::type;
    const T* from = static_cast<const T*>(a.from);
    for (int64_t k = 0; k < a.rows; k += kRun) {
      int64_t run = a.rows - k < kRun ? a.rows - k : kRun;
      for (int64_t panel = begin; panel < end; ++panel) {
        int64_t left = a.cols - panel * kPanel;
        int64_t count = left < kPanel ? left : kPanel;
        S* to = static_cast<S*>(a.to) + (panel * a.rows + k) * kPanel;
        arrange(from + k * a.row + panel * kPanel * a.col, a.row, a.col, run, count, to, kPanel);
        for (int64_t i = 0; count < kPanel && i < run; ++i)
          for (int64_t c = count; c < kPanel; ++c) to[i * kPanel + c] = 0;
      }
    }
  });
}

HONED_END_LEVEL
