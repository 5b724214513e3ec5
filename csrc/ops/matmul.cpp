// matmul: checks, the choice of a way, then the CPU table.
#include "ops/matmul.h"

#include <algorithm>
#include <atomic>

#include "core/arena.h"
#include "core/check.h"
#include "core/parallel.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

DType sum_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

const void* advance(const Strided& t, int64_t rows, int64_t cols) {
  return static_cast<const char*>(t.data) + (rows * t.row + cols * t.col) * size_of(t.dtype);
}

Strided turned(const Strided& t) { return {t.data, t.dtype, t.col, t.row}; }
Strided strided(const TensorView& t) { return {t.data, t.dtype, t.stride(-2), t.stride(-1)}; }

// The part of a destination from a row and a column on.
Destination from(const Destination& to, int64_t row, int64_t col) {
  Destination part = to;
  const int64_t size = size_of(to.dtype), wide = size_of(sum_type(to.dtype));
  part.y = static_cast<char*>(to.y) + (row * to.y_row + col * to.y_col) * size;
  if (to.bias) part.bias = static_cast<const char*>(to.bias) + col * wide;
  if (to.bias_of_rows) part.bias_of_rows = static_cast<const char*>(to.bias_of_rows) + row * wide;
  if (to.residual)
    part.residual = static_cast<const char*>(to.residual) +
                    (row * to.residual_row + col * to.residual_col) * size;
  return part;
}

// Rows whose lines fall on the same sets of the first cache push each other out of it.
// (1024 x 1024 x 1024, Zen 4: 0.71 of peak in place, 0.94 in rows that are padded.)
bool rows_collide(int64_t stride_bytes) { return stride_bytes % 2048 == 0; }

// Rounded up to a cache line, and one more where rows would collide.
int64_t padded_row(int64_t k, int64_t size) {
  const int64_t line = 64 / size, row = ceil_div(k, line) * line;
  return rows_collide(row * size) ? row + line : row;
}

void arrange_rows(const Strided& x, int64_t m, int64_t k, void* to, int64_t to_row,
                  bool narrow = false) {
  MatmulArrangeArgs args{x.data, x.dtype, m, k, x.row, x.col, to, to_row, narrow};
  cpu::run(cpu::kernels().matmul_rows, args, ceil_div(m, kTurned), cpu::grain_for(kTurned * k / 4));
}

int64_t panel_bytes_of(DType dtype, int64_t k, bool narrow) {
  return kPanel * (narrow ? ceil_div(k, 2) * 4 : k * size_of(sum_type(dtype)));
}

// k inputs of n columns as panels, in `to`: n rounded up to panels.
PackedView arrange_panels(const Strided& b, int64_t k, int64_t n, void* to, bool narrow = false) {
  MatmulArrangeArgs args{b.data, b.dtype, k, n, b.row, b.col, to, 0, narrow};
  cpu::run(cpu::kernels().matmul_panels, args, ceil_div(n, kPanel), cpu::grain_for(kPanel * k / 4));
  PackedView w{};
  w.kind = narrow ? WeightKind::bf16 : b.dtype == DType::f64 ? WeightKind::f64 : WeightKind::f32;
  w.n = n;
  w.k = w.k_padded = k;
  w.panels = ceil_div(n, kPanel);
  w.panel_bytes = panel_bytes_of(b.dtype, k, narrow);
  w.data = static_cast<const uint8_t*>(to);
  return w;
}

// Rows of x at a time and panels at a time that are arranged: they stay in the last cache.
constexpr int64_t kRowBytes = int64_t{8} << 20, kPanelBytes = int64_t{16} << 20;

}  // namespace

void check_plus(const char* op, const Epilogue& e, int64_t m, int64_t n, DType dtype) {
  HONED_CHECK(!e.left == !e.right, op, ": plus has one operand, expected two");
  if (!e.left) return;
  const TensorView &left = *e.left, &right = *e.right;
  HONED_CHECK_TYPE(left.dtype == dtype && right.dtype == dtype, op, ": plus is ",
                   name_of(left.dtype), " and ", name_of(right.dtype), ", expected ",
                   name_of(dtype), " as input is");
  HONED_CHECK(left.ndim == 2 && right.ndim == 2 && left.size(0) == m && right.size(1) == n &&
                  left.size(1) == right.size(0),
              op, ": plus has shapes ", shape_of(left), " and ", shape_of(right), ", expected [", m,
              ", r] and [r, ", n, "]");
}

SecondProduct::SecondProduct(const Epilogue& e, int64_t m, int64_t n, DType wide)
    : inner_(e.left ? e.left->size(1) : -1),
      size_(size_of(wide)),
      rows_(e.left ? m * inner_ * size_ : 0),
      panels_(e.left ? ceil_div(n, kPanel) * kPanel * inner_ * size_ : 0) {
  if (!e.left) return;
  arrange_rows(strided(*e.left), m, inner_, rows_.as<void>(), inner_);
  w_ = arrange_panels(strided(*e.right), inner_, n, panels_.as<void>());
}

void SecondProduct::attach(LinearArgs& args, int64_t first_row) const {
  if (inner_ < 0) return;
  args.plus = &w_;
  args.plus_rows.x = rows_.as<char>() + first_row * inner_ * size_;
  args.plus_rows.x_stride = inner_;
}

void multiply(const Strided& x, int64_t m, const PackedView& w, const Destination& to,
              const Epilogue& epilogue) {
  const bool dots = w.kind == WeightKind::bf16 && x.dtype == DType::bf16 && bf16_dots_pay();
  const DType wide = sum_type(x.dtype), held = dots ? DType::bf16 : wide;
  const int64_t size = size_of(held), k = w.k;
  const bool ready = x.dtype == held && x.col == 1 &&
                     (!rows_collide(x.row * size) || m <= kMatmulRows || k * size <= 2048);
  const int64_t row = ready ? x.row : padded_row(k, size);
  int64_t step = m;
  if (!ready) step = std::max<int64_t>(1, kRowBytes / (row * size * kBlockRows)) * kBlockRows;
  Scratch block(ready ? 0 : std::min(step, m) * row * size);
  SecondProduct plus(epilogue, m, w.n, wide);
  for (int64_t at = 0; at < m; at += step) {
    const int64_t rows = std::min(step, m - at);
    Strided part{advance(x, at, 0), x.dtype, x.row, x.col};
    LinearArgs args{w, {part.data, row}, rows, from(to, at, 0)};
    args.rows.bf16 = dots;
    if (!ready) {
      arrange_rows(part, rows, k, block.as<void>(), row, dots);
      args.rows.x = block.as<void>();
    }
    plus.attach(args, at);
    int64_t operations = std::min<int64_t>(rows, kBlockRows) * k * kPanel / 8;
    cpu::run(cpu::kernels().linear, args, linear_items(w, rows), cpu::grain_for(operations));
  }
}

bool bf16_dots_pay() {
  auto measure = [] {
    uint64_t dot = ~uint64_t{0}, fma = dot;
    for (int i = 0; i < 5; ++i) {
      uint64_t dot_now = ~uint64_t{0}, fma_now = 0;
      cpu::kernels().bf16_rate({&dot_now, &fma_now}, 0, 1000);
      dot = std::min(dot, dot_now);  // the best of each: an interruption of one is no answer
      fma = std::min(fma, fma_now);
    }
    return dot < 2 * fma;  // a dot does the work of two FMAs, and nothing is widened
  };
  // One answer a level: a plain race of equal values at worst.
  static std::atomic<const char*> measured{nullptr};
  static std::atomic<bool> pays{false};
  const char* level = cpu::level();
  if (measured.load(std::memory_order_acquire) != level) {
    pays.store(measure());
    measured.store(level, std::memory_order_release);
  }
  return pays.load();
}

int64_t matmul_items(int64_t m, int64_t n) {
  return ceil_div(m, kMatmulRows) * ceil_div(n, kMatmulPanels * kPanel);
}

namespace {

struct Product {
  Strided a, b;
  int64_t m, n, k;
  Destination to;
  Epilogue epilogue;  // left, right
};

// Up to these rows the operands are multiplied where they lie. Zen 4, from 768 x 768 weights: dot
// products lose to panels from 24 rows on, tiles over rows of b from 16 on (where b is small, never:
// it is in the first cache).
constexpr int64_t kDotRows = 24, kInPlaceRows = 16, kSmall = 4096;

bool in_place(const Product& p) {
  const bool dots = p.a.col == 1 && p.b.row == 1;
  if (p.epilogue.left ||
      !(dots ? p.m <= kDotRows : p.b.col == 1 && (p.m <= kInPlaceRows || p.k * p.n <= kSmall)))
    return false;
  const DType wide = sum_type(p.a.dtype);
  const bool ready = dots || p.a.dtype == wide;
  const int64_t row = padded_row(p.k, size_of(wide));
  Scratch rows(ready ? 0 : p.m * row * size_of(wide));
  MatmulArgs args{p.a.data, p.b.data, p.a.row, p.a.col, p.b.row,   p.b.col,
                  p.m,      p.n,      p.k,     dots,    p.b.dtype, p.to};
  if (!ready) {
    arrange_rows(p.a, p.m, p.k, rows.as<void>(), row);
    args.a = rows.as<void>();
    args.a_row = row;
    args.a_col = 1;
  }
  int64_t operations = std::min<int64_t>(p.m, kMatmulRows) * kMatmulPanels * kPanel * p.k / 8;
  cpu::run(cpu::kernels().matmul, args, matmul_items(p.m, p.n), cpu::grain_for(operations));
  return true;
}

void product(const Product& p) {
  if (in_place(p)) return;
  const bool dots = p.b.dtype == DType::bf16 && bf16_dots_pay();
  const int64_t panel = panel_bytes_of(p.b.dtype, std::max<int64_t>(1, p.k), dots);
  const int64_t step = std::max<int64_t>(8, kPanelBytes / panel) * kPanel;
  Scratch block(ceil_div(std::min(step, p.n), kPanel) * panel);
  for (int64_t at = 0; at < p.n; at += step) {
    const int64_t columns = std::min(step, p.n - at);
    Strided part{advance(p.b, 0, at), p.b.dtype, p.b.row, p.b.col};
    PackedView w = arrange_panels(part, p.k, columns, block.as<void>(), dots);
    Epilogue epilogue = p.epilogue;
    TensorView right;
    if (epilogue.right) {
      right = *epilogue.right;
      right.data = right.as<char>() + at * right.stride(1) * size_of(right.dtype);
      right.shape[1] = columns;
      epilogue.right = &right;
    }
    multiply(p.a, p.m, w, from(p.to, 0, at), epilogue);
  }
}

// Few columns are few rows of the product of the turned matrices.
void either_way(Product p) {
  TensorView left, right;
  if (p.n < kPanel && p.m > p.n) {
    auto turn = [](const TensorView& t) {
      TensorView r = t;
      std::swap(r.shape[0], r.shape[1]);
      std::swap(r.strides[0], r.strides[1]);
      return r;
    };
    if (p.epilogue.left) {
      left = turn(*p.epilogue.right);
      right = turn(*p.epilogue.left);
      p.epilogue.left = &left;
      p.epilogue.right = &right;
    }
    Strided a = p.a;
    p.a = turned(p.b);
    p.b = turned(a);
    std::swap(p.m, p.n);
    std::swap(p.to.y_row, p.to.y_col);
    std::swap(p.to.residual_row, p.to.residual_col);
    std::swap(p.to.bias, p.to.bias_of_rows);
  }
  product(p);
}

// A dimension of one element has any stride: the ones that help.
void settle_strides(Product& p) {
  if (p.k <= 1) {
    p.a.col = 1;
    if (p.b.col != 1) p.b.row = 1;
  }
  if (p.m == 1) p.a.row = p.k;
  if (p.n == 1 && (p.b.row != 1 || p.a.col != 1)) p.b.col = 1;
}

void check(const TensorView& y, const TensorView& a, const TensorView& b, const Epilogue& e) {
  HONED_CHECK_TYPE(a.dtype == DType::f64 || is_float(a.dtype), "matmul: input is ",
                   name_of(a.dtype), ", expected float64, float32, float16 or bfloat16");
  for (const TensorView* t : {&b, &y, e.bias, e.residual})
    HONED_CHECK_TYPE(!t || t->dtype == a.dtype, "matmul: input is ", name_of(a.dtype),
                     " and another operand ", t ? name_of(t->dtype) : "", ", expected one type");
  HONED_CHECK(a.size(-1) == b.size(-2), "matmul: input has shape ", shape_of(a), " and other ",
              shape_of(b), ", expected the columns of input to be as many as the rows of other");
  const int64_t m = a.size(-2), n = b.size(-1);
  HONED_CHECK(y.size(-2) == m && y.size(-1) == n, "matmul: output has shape ", shape_of(y),
              ", expected the last dimensions ", m, " and ", n);
  HONED_CHECK(!e.bias || (e.bias->ndim == 1 && e.bias->size(0) == n), "matmul: bias has shape ",
              e.bias ? shape_of(*e.bias) : "", ", expected [", n, "]");
  HONED_CHECK(!e.residual || (y.ndim == 2 && same_shape(*e.residual, y)),
              "matmul: residual has shape ", e.residual ? shape_of(*e.residual) : "",
              ", expected that of an output without leading dimensions, ", shape_of(y));
  HONED_CHECK(!e.left || y.ndim == 2, "matmul: plus beside an output of shape ", shape_of(y),
              ", expected no leading dimensions");
  check_plus("matmul", e, m, n, a.dtype);
  HONED_CHECK_TYPE(
      a.dtype != DType::f64 || e.activation == Activation::none || e.activation == Activation::relu,
      "matmul: activation of float64 is neither none nor relu, expected one of these");
}

// The step from row to row where leading dimensions and rows are one dimension; false where not.
bool one_step(const TensorView& t, int64_t* step) {
  int64_t expected = 0;
  bool first = true;
  *step = t.stride(-2);
  for (int d = t.ndim - 2; d >= 0; --d) {
    if (t.shape[d] == 1) continue;
    if (first) *step = t.strides[d];
    if (!first && t.strides[d] != expected) return false;
    expected = t.strides[d] * t.shape[d];
    first = false;
  }
  return true;
}

// Leading dimensions are rows of one product where b is the same for all of them.
void fold(TensorView& y, TensorView& a, TensorView& b) {
  int64_t y_step, a_step;
  for (int d = 0; d < y.ndim - 2; ++d)
    if (b.strides[d] != 0 && b.shape[d] != 1) return;
  if (!one_step(y, &y_step) || !one_step(a, &a_step)) return;
  int64_t rows = y.numel() / y.size(-1), k = b.size(-2);
  auto flat = [](TensorView& t, int64_t count, int64_t step) {
    t.strides[0] = step;
    t.strides[1] = t.stride(-1);
    t.shape[1] = t.size(-1);
    t.shape[0] = count;
    t.ndim = 2;
  };
  flat(y, rows, y_step);
  flat(a, rows, a_step);
  flat(b, k, b.stride(-2));
}

}  // namespace

void matmul(const TensorView& to, const TensorView& left, const TensorView& right,
            const Epilogue& epilogue) {
  check(to, left, right, epilogue);
  if (to.numel() == 0) return;
  TensorView y = to, a = left, b = right;
  fold(y, a, b);
  Product p{strided(a), strided(b), a.size(-2), b.size(-1), a.size(-1), {}, {}};
  p.to.y_row = y.stride(-2);
  p.to.y_col = y.stride(-1);
  p.to.dtype = a.dtype;
  p.to.activation = epilogue.activation;
  p.to.scale = epilogue.scale;
  p.epilogue.left = epilogue.left;
  p.epilogue.right = epilogue.right;
  if (epilogue.residual) {
    p.to.residual = epilogue.residual->data;
    p.to.residual_row = epilogue.residual->stride(0);
    p.to.residual_col = epilogue.residual->stride(1);
  }
  const int64_t size = size_of(a.dtype), wide = size_of(sum_type(a.dtype));
  const int64_t padded = epilogue.bias ? ceil_div(p.n, kPanel) * kPanel : 0;
  Scratch bias(padded * wide);
  if (epilogue.bias) {
    std::fill_n(bias.as<char>(), padded * wide, char{0});
    arrange_rows({epilogue.bias->data, a.dtype, 0, epilogue.bias->stride(0)}, 1, p.n,
                 bias.as<void>(), padded);
    p.to.bias = bias.as<void>();
  }
  settle_strides(p);
  int64_t batch = 1;
  for (int d = 0; d < y.ndim - 2; ++d) batch *= y.shape[d];
  auto some = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t rest = i, at_a = 0, at_b = 0, at_y = 0;
      for (int d = y.ndim - 3; d >= 0; --d) {
        int64_t index = rest % y.shape[d];
        rest /= y.shape[d];
        at_a += index * a.strides[d];
        at_b += index * b.strides[d];
        at_y += index * y.strides[d];
      }
      Product one = p;
      one.a.data = a.as<char>() + at_a * size;
      one.b.data = b.as<char>() + at_b * size;
      one.to.y = y.as<char>() + at_y * size;
      either_way(one);
    }
  };
  // Small matrices are divided among the threads, large ones each by all threads.
  constexpr int64_t kLarge = int64_t{1} << 24;
  int64_t operations = p.m * p.n * p.k;
  if (batch >= 2 * num_threads() && operations < kLarge)
    parallel_for(batch, cpu::grain_for(operations / 8), some);
  else
    some(0, batch);
}

}  // namespace honed
