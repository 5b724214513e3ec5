// matmul: checks, the choice of a way, then the CPU table.
#include "ops/matmul.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "core/parallel.h"
#include "cpu/dispatch.h"
#include "ops/_product_rate.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

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

MatmulArrangeArgs rows_of(const Strided& x, int64_t m, int64_t k, void* to, int64_t to_row,
                          bool narrow = false) {
  return {x.data, x.dtype, m, k, x.row, x.col, to, to_row, narrow};
}
MatmulArrangeArgs panels_of(const Strided& b, int64_t k, int64_t n, void* to, bool narrow = false) {
  return {b.data, b.dtype, k, n, b.row, b.col, to, 0, narrow};
}

void arrange_rows(const MatmulArrangeArgs& args) {
  cpu::run(cpu::kernels().matmul_rows, args, ceil_div(args.rows, kTurned),
           cpu::grain_for(kTurned * args.cols / 4));
}

int64_t panel_bytes_of(DType dtype, int64_t k, bool narrow) {
  return kPanel * (narrow ? ceil_div(k, 2) * 4 : k * size_of(sum_type(dtype)));
}

// The weight that panels_of makes.
PackedView view_of(const MatmulArrangeArgs& panels) {
  PackedView w{};
  w.kind = panels.narrow                ? WeightKind::bf16
           : panels.dtype == DType::f64 ? WeightKind::f64
                                        : WeightKind::f32;
  w.n = panels.cols;
  w.k = w.k_padded = panels.rows;
  w.panels = ceil_div(panels.cols, kPanel);
  w.panel_bytes = panel_bytes_of(panels.dtype, panels.rows, panels.narrow);
  w.data = static_cast<const uint8_t*>(panels.to);
  return w;
}

// Panels that are arranged at a time: they stay in the last cache.
constexpr int64_t kPanelBytes = int64_t{16} << 20;

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
  arrange_rows(rows_of(strided(*e.left), m, inner_, rows_.as<void>(), inner_));
  MatmulArrangeArgs panels = panels_of(strided(*e.right), inner_, n, panels_.as<void>());
  w_ = view_of(panels);
  cpu::run(cpu::kernels().matmul_panels, panels, w_.panels, cpu::grain_for(kPanel * inner_ / 4));
}

void SecondProduct::attach(LinearArgs& args, int64_t first_row) const {
  if (inner_ < 0) return;
  args.plus = &w_;
  args.plus_rows.x = rows_.as<char>() + first_row * inner_ * size_;
  args.plus_rows.x_stride = inner_;
}

namespace {

// Rows go over the threads in blocks, which end with whole tiles where there are many. By the sizes
// alone, as sums of the last few rows of a block have another order.
constexpr int64_t kTile = 14, kFewestRows = 8;
static_assert(kBlockRows % kTile == 0);

int64_t blocks_of(int64_t m, int64_t units) {
  const int64_t fewest = ceil_div(m, kBlockRows);
  int64_t blocks = fewest;
  while (blocks * units % 4 != 0) ++blocks;  // as much for each of two or four
  return m >= blocks * kFewestRows ? blocks : fewest;
}

int64_t start_of(int64_t block, int64_t blocks, int64_t m) {
  const int64_t tiles = ceil_div(m, kTile);  // of a block at most kBlockRows / kTile
  if (tiles < 4 * blocks) return m * block / blocks;
  return std::min(m, tiles * block / blocks * kTile);
}

}  // namespace

void multiply(const Strided& x, int64_t m, const PackedView& w, const Destination& to,
              const Epilogue& epilogue, const MatmulArrangeArgs* panels) {
  Way way = Way::plain;
  if (w.kind == WeightKind::bf16 && x.dtype == DType::bf16) way = way_of_bf16(m);
  if (w.kind == WeightKind::f16 && x.dtype == DType::f16 && epilogue.half_sums && half_sums_pay())
    way = Way::halves;
  const bool narrow = way != Way::plain;
  const DType wide = sum_type(x.dtype), held = narrow ? x.dtype : wide;
  const int64_t size = size_of(held), k = w.k;
  const bool ready = x.dtype == held && x.col == 1 &&
                     (!rows_collide(x.row * size) || m <= kMatmulRows || k * size <= 2048);
  const int64_t row = ready ? x.row : padded_row(k, size);
  const int64_t units = linear_items(w, 1), blocks = blocks_of(m, units);
  const int64_t items = units * blocks;
  const int threads = cpu::threads_for(m * w.n * k / 8);
  const int64_t block_bytes = ready ? 0 : std::min<int64_t>(m, kBlockRows) * row * size;
  Scratch scratch(threads * block_bytes);
  SecondProduct plus(epilogue, m, w.n, wide);
  const cpu::KernelTable& kernels = cpu::kernels();
  run_team(threads, [&](const Team& team) {
    if (panels) {
      kernels.matmul_panels(*panels, team.begin(w.panels), team.end(w.panels));
      team.barrier();
    }
    // A block of rows at a time: what was arranged of it is still in the second cache.
    char* own = scratch.as<char>() + team.rank * block_bytes;
    const int64_t stop = team.end(items);
    for (int64_t item = team.begin(items); item < stop;) {
      const int64_t b = item / units, end = std::min(stop, (b + 1) * units);
      const int64_t first = start_of(b, blocks, m), count = start_of(b + 1, blocks, m) - first;
      const Strided part{advance(x, first, 0), x.dtype, x.row, x.col};
      LinearArgs args{w, {ready ? part.data : own, row}, count, from(to, first, 0)};
      args.rows.way = way;
      plus.attach(args, first);
      if (!ready)
        kernels.matmul_rows(rows_of(part, count, k, own, row, narrow), 0, ceil_div(count, kTurned));
      kernels.linear(args, item - b * units, end - b * units);
      item = end;
    }
  });
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

// Up to these rows the operands are multiplied where they lie. Zen 4, 768 x 768 weights: dot
// products lose to panels from 24 rows on, tiles over rows of b from 17 on (where b is small, never:
// it is in the first cache); tiles that widen bf16 lose to dots of arranged pairs from 7 on.
constexpr int64_t kDotRows = 20, kInPlaceRows = 16, kWidenedRows = 6, kSmall = 40000;

bool in_place(const Product& p) {
  const bool bf16 = p.b.dtype == DType::bf16 && way_of_bf16(p.m) != Way::plain;
  const DType wide = sum_type(p.a.dtype), held = bf16 ? DType::bf16 : wide;
  const bool dots = p.b.row == 1 && (p.a.col == 1 || p.a.dtype == held);
  const int64_t most = dots ? kDotRows : bf16 ? kWidenedRows : kInPlaceRows;
  if (p.epilogue.left || !(dots || p.b.col == 1)) return false;
  if (p.m > most && (dots || bf16 || p.k * p.n > kSmall)) return false;
  const bool ready = dots ? p.a.col == 1 : p.a.dtype == wide;
  const int64_t size = size_of(dots ? held : wide), row = padded_row(p.k, size);
  Scratch rows(ready ? 0 : p.m * row * size);
  MatmulArgs args{p.a.data, p.b.data, p.a.row, p.a.col, p.b.row,   p.b.col, p.m,
                  p.n,      p.k,      dots,    bf16,    p.b.dtype, p.to};
  if (!ready) {
    arrange_rows(rows_of(p.a, p.m, p.k, rows.as<void>(), row, dots && bf16));
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
  const bool narrow = p.b.dtype == DType::bf16 && way_of_bf16(p.m) != Way::plain;
  const int64_t panel = panel_bytes_of(p.b.dtype, std::max<int64_t>(1, p.k), narrow);
  const int64_t step = std::max<int64_t>(8, kPanelBytes / panel) * kPanel;
  Scratch block(ceil_div(std::min(step, p.n), kPanel) * panel);
  for (int64_t at = 0; at < p.n; at += step) {
    const int64_t columns = std::min(step, p.n - at);
    Strided part{advance(p.b, 0, at), p.b.dtype, p.b.row, p.b.col};
    const MatmulArrangeArgs panels = panels_of(part, p.k, columns, block.as<void>(), narrow);
    Epilogue epilogue = p.epilogue;
    TensorView right;
    if (epilogue.right) {
      right = *epilogue.right;
      right.data = right.as<char>() + at * right.stride(1) * size_of(right.dtype);
      right.shape[1] = columns;
      epilogue.right = &right;
    }
    multiply(p.a, p.m, view_of(panels), from(p.to, 0, at), epilogue, &panels);
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
  const bool wider = y.dtype == DType::f32 && is_float(a.dtype);
  for (const TensorView* t : {&b, wider ? nullptr : &y, e.bias, wider ? nullptr : e.residual})
    HONED_CHECK_TYPE(!t || t->dtype == a.dtype, "matmul: input is ", name_of(a.dtype),
                     " and another operand ", t ? name_of(t->dtype) : "", ", expected one type");
  HONED_CHECK_TYPE(!e.residual || e.residual->dtype == y.dtype,
                   "matmul: residual is not of the output's type, ", name_of(y.dtype));
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
      a.dtype != DType::f64 || e.activation <= Activation::relu6,
      "matmul: activation of float64 is not none, relu or relu6, expected one of these");
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
  p.to.dtype = y.dtype;
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
    arrange_rows(rows_of({epilogue.bias->data, a.dtype, 0, epilogue.bias->stride(0)}, 1, p.n,
                         bias.as<void>(), padded));
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
      one.to.y = y.as<char>() + at_y * size_of(y.dtype);
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
