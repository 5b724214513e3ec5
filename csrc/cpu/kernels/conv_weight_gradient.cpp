// dw[o,c,k] = sum over pixels of g[o,p] x[c, p stride + k dilation - before], tile by tile.
#include "cpu/kernels/conv_strip.h"
#include "cpu/kernels/linear_tile.h"
#include "cpu/simd/vec_f64.h"
#include "ops/_conv_gradient.h"

HONED_BEGIN_LEVEL

namespace {

// Pixels of a tile: images, rows and columns, and the elements from one to the next.
struct Walk {
  int64_t unit, row, col;
};

// out[m][v] (+)= sum over pixels of b[m] v[v]
template <int MR, int kWide, class S>
[[gnu::noinline]] void pixel_tile(const S* v, const Walk& v_step, const S* b, const Walk& b_step,
                                  const Walk& count, bool add, S* out, int64_t out_row) {
  using V = typename Simd<S>::type;
  constexpr int kVector = Simd<S>::lanes;
  V sum[MR][kWide];
  for (int m = 0; m < MR; ++m)
    for (int i = 0; i < kWide; ++i) sum[m][i] = set1(S(0));
  for (int64_t u = 0; u < count.unit; ++u)
    for (int64_t r = 0; r < count.row; ++r) {
      const S* at = v + u * v_step.unit + r * v_step.row;
      const S* by = b + u * b_step.unit + r * b_step.row;
      for (int64_t c = 0; c < count.col; ++c, at += v_step.col, by += b_step.col) {
        V lanes[kWide];
        for (int i = 0; i < kWide; ++i) lanes[i] = load(at + i * kVector);
        for (int m = 0; m < MR; ++m) {
          V value = set1(by[m]);
          for (int i = 0; i < kWide; ++i) sum[m][i] = fmadd(value, lanes[i], sum[m][i]);
        }
      }
    }
  for (int m = 0; m < MR; ++m)
    for (int i = 0; i < kWide; ++i) {
      S* to = out + m * out_row + i * kVector;
      store(to, add ? load(to) + sum[m][i] : sum[m][i]);
    }
}

// The part of [0, n) that is the i-th of `parts`.
HONED_INLINE int64_t part_of(int64_t n, int64_t i, int64_t parts) { return n * i / parts; }

// How a step's pixels are cut into pieces that a tile adds up at once.
struct Pieces {
  int64_t units, rows, cols;  // of a piece, at most
  int64_t unit_blocks, row_blocks, col_blocks;
};
HONED_INLINE Pieces pieces_of(const ConvGradientArgs& a) {
  auto blocks = [](int64_t n, int64_t most) { return (n + most - 1) / most; };
  Pieces p{1, 1, 0, 0, 0, 0};
  p.col_blocks = blocks(a.cols, kGradientPixels);
  p.cols = blocks(a.cols, p.col_blocks);
  if (p.col_blocks == 1) {
    p.rows = kGradientPixels / a.cols;
    if (p.rows >= a.rows) {
      p.rows = a.rows;
      p.units = kGradientPixels / (a.rows * a.cols);
    }
  }
  p.row_blocks = blocks(a.rows, p.rows);
  p.unit_blocks = blocks(a.units, p.units);
  return p;
}

// One item: a block of rows times a panel of lanes of one tap, over one part of the pixels.
template <class S>
void weight_item(const ConvGradientArgs& a, int64_t item) {
  const int64_t panels = (a.lanes + kPanel - 1) / kPanel;
  const int64_t taps = a.taps[0] * a.taps[1] * a.taps[2];
  const int64_t blocks = (a.row_count + kGradientRows - 1) / kGradientRows;
  const int64_t panel = item % panels, tap = item / panels % taps,
                block = item / panels / taps % blocks;
  const int64_t part = item / panels / taps / blocks;
  const int64_t first_row = part_of(a.row_count, block, blocks);
  const int rows = int(part_of(a.row_count, block + 1, blocks) - first_row);

  const int64_t kw = tap % a.taps[2], kh = tap / a.taps[2] % a.taps[1],
                kd = tap / a.taps[2] / a.taps[1];
  const S* x = static_cast<const S*>(a.x_strip) + kd * a.x_plane +
               kh * a.shape.dilation[1] * a.x_row + kw * a.shape.dilation[2] * a.x_pixel;
  const S* g = static_cast<const S*>(a.g_strip);
  const Walk x_walk{a.x_unit, a.next[1] * a.x_row, a.next[2] * a.x_pixel};
  const Walk g_walk{a.g_unit, a.g_row, a.g_pixel};
  const S *v = x, *b = g;
  Walk v_walk = x_walk, b_walk = g_walk;
  if (a.outputs_are_lanes) {
    v = g;
    b = x;
    v_walk = g_walk;
    b_walk = x_walk;
  }
  S* sums = static_cast<S*>(a.sums) + ((part * taps + tap) * a.row_count + first_row) * a.lane_row +
            panel * kPanel;
  v += panel * kPanel;
  b += first_row;

  const Pieces p = pieces_of(a);
  const int64_t pieces = p.unit_blocks * p.row_blocks * p.col_blocks;
  const int64_t last = part_of(pieces, part + 1, a.parts);
  constexpr int kVector = Simd<S>::lanes;
  const int64_t left = a.lanes - panel * kPanel;
  const int lanes = int(left < kPanel ? left : kPanel);
  for (int lane = 0; lane < lanes; lane += 2 * kVector)
    for_tiles<kRows>(rows, [&](int row, auto tile) {
      constexpr int kTile = decltype(tile)::count;
      S* to = sums + row * a.lane_row + lane;
      bool add = a.add;
      for (int64_t piece = part_of(pieces, part, a.parts); piece < last; ++piece) {
        const int64_t c = piece % p.col_blocks * p.cols;
        const int64_t r = piece / p.col_blocks % p.row_blocks * p.rows;
        const int64_t u = piece / p.col_blocks / p.row_blocks * p.units;
        const Walk count{a.units - u < p.units ? a.units - u : p.units,
                         a.rows - r < p.rows ? a.rows - r : p.rows,
                         a.cols - c < p.cols ? a.cols - c : p.cols};
        const S* from = v + u * v_walk.unit + r * v_walk.row + c * v_walk.col + lane;
        const S* by = b + u * b_walk.unit + r * b_walk.row + c * b_walk.col + row;
        if (lanes - lane > kVector)
          pixel_tile<kTile, 2>(from, v_walk, by, b_walk, count, add, to, a.lane_row);
        else
          pixel_tile<kTile, 1>(from, v_walk, by, b_walk, count, add, to, a.lane_row);
        add = true;
      }
      if (!add)  // a part without pixels
        for (int m = 0; m < kTile; ++m)
          for (int i = 0; i < 2 * kVector && lane + i < lanes; ++i) to[m * a.lane_row + i] = S(0);
    });
}

// Sums of g over the step's pixels, a panel of outputs.
template <class S>
void bias_item(const ConvGradientArgs& a, int64_t panel) {
  constexpr int kVector = Simd<S>::lanes;
  const int64_t stop = (panel + 1) * kPanel < a.outputs ? (panel + 1) * kPanel : a.outputs;
  for (int64_t o = panel * kPanel; o < stop; o += kVector) {
    const int n = int(stop - o < kVector ? stop - o : kVector);
    for (int i = 0; i < n && !a.add; ++i) a.bias_sums[o + i] = 0;
    for (int64_t u = 0; u < a.units; ++u)
      for (int64_t r = 0; r < a.rows; ++r) {
        const S* row = static_cast<const S*>(a.g_strip) + u * a.g_unit + r * a.g_row + o;
        for (int64_t c = 0; c < a.cols; c += kGradientPixels) {
          const int64_t end = c + kGradientPixels < a.cols ? c + kGradientPixels : a.cols;
          typename Simd<S>::type sum = set1(S(0));
          for (int64_t i = c; i < end; ++i) sum = sum + load(row + i * a.g_pixel, n);
          alignas(64) S lanes[kVector];
          store(static_cast<S*>(lanes), sum);
          for (int i = 0; i < n; ++i) a.bias_sums[o + i] += double(lanes[i]);
        }
      }
  }
}

HONED_INLINE void store_one(double* p, double value) { *p = value; }
HONED_INLINE void store_one(float* p, float value) { *p = value; }
template <class T>
HONED_INLINE void store_one(T* p, float value) {
  store(p, set1(value), 1);
}

// A vector of inputs c, c + 1, ... of one element of the kernel: its sums over all parts.
template <class S>
HONED_INLINE typename Simd<S>::type inputs_of(const ConvGradientArgs& a, const S* at, int n) {
  const int64_t part = a.taps[0] * a.taps[1] * a.taps[2] * a.row_count * a.lane_row;
  typename Simd<S>::type sum = set1(S(0));
  for (int64_t p = 0; p < a.parts; ++p, at += part) {
    if (!a.outputs_are_lanes) {
      sum = sum + load(at, n);
      continue;
    }
    alignas(64) S lanes[Simd<S>::lanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = at[i * a.lane_row];
    sum = sum + load(static_cast<const S*>(lanes));
  }
  return sum;
}

template <class S, class T>
void store_output(const ConvGradientArgs& a, int64_t o) {
  constexpr int kVector = Simd<S>::lanes;
  constexpr int64_t kMost = 64;  // elements of a kernel that is turned in one block
  if (a.bias) store_one(static_cast<T*>(a.db) + o * a.db_o, S(a.bias_sums[o]));
  if (!a.weight) return;
  const int64_t* kernel = a.shape.kernel;
  const int64_t elements = kernel[0] * kernel[1] * kernel[2], in_run = kernel[2] / a.taps[2];
  const int64_t plane = a.row_count * a.lane_row;
  const int64_t inputs = a.outputs_are_lanes ? a.lane_row : 1;
  const S* sums = static_cast<const S*>(a.sums) + o * (a.outputs_are_lanes ? 1 : a.lane_row);
  T* dw = static_cast<T*>(a.dw) + o * a.dw_o;
  const bool dense = a.dw_c == elements && a.dw_k[2] == 1 && a.dw_k[1] == kernel[2] &&
                     a.dw_k[0] == kernel[1] * kernel[2] && elements <= kMost;
  alignas(64) S block[kMost * kVector];
  for (int64_t c = 0; c < a.channels; c += kVector) {
    const int n = int(a.channels - c < kVector ? a.channels - c : kVector);
    int64_t k = 0;
    for (int64_t kd = 0; kd < kernel[0]; ++kd)
      for (int64_t kh = 0; kh < kernel[1]; ++kh)
        for (int64_t kw = 0; kw < kernel[2]; ++kw, ++k) {
          const int64_t tap = (kd * kernel[1] + kh) * a.taps[2] + (in_run > 1 ? 0 : kw);
          const int64_t first = in_run > 1 ? kw * a.channels + c : c;
          const auto values = inputs_of<S>(a, sums + tap * plane + first * inputs, n);
          T* to = dw + c * a.dw_c + kd * a.dw_k[0] + kh * a.dw_k[1] + kw * a.dw_k[2];
          if (a.dw_c == 1) {
            store(to, values, n);
            continue;
          }
          alignas(64) S lanes[kVector];
          store(static_cast<S*>(lanes), values);
          for (int i = 0; i < n; ++i)
            if (dense)
              block[i * elements + k] = lanes[i];
            else
              store_one(to + i * a.dw_c, lanes[i]);
        }
    if (dense && a.dw_c != 1)
      for_lanes_of<T>(n * elements, [&](int64_t i, int count) {
        store(dw + c * elements + i, load(static_cast<const S*>(block) + i, count), count);
      });
  }
}

template <class S>
void load_row(const ConvGradientArgs& a, int64_t item) {
  const int64_t x_rows = a.weight && !a.x_lies ? a.x_count[0] * a.x_count[1] : 0;
  const int64_t rows = gradient_row_items(a) / a.units;
  const int64_t unit = item / rows, row = item % rows;
  if (row < x_rows) {
    const int64_t d = row / a.x_count[1], h = row % a.x_count[1];
    const ConvShape& s = a.shape;
    const Strip strip{a.n + unit,
                      a.group * a.channels,
                      a.channels,
                      {a.first[0] * s.stride[0] + d * a.x_step[0] - s.before[0],
                       a.first[1] * s.stride[1] + h * a.x_step[1] - s.before[1],
                       a.first[2] * s.stride[2] - s.before[2]},
                      {1, 1, a.x_count[2]},
                      {1, 1, a.x_step[2]}};
    load_strip(a.x, s.border, strip,
               static_cast<S*>(a.x_strip) + unit * a.x_unit + d * a.x_plane + h * a.x_row,
               a.x_pixel, a.x_row, a.x_plane);
  } else {
    const int64_t h = (row - x_rows) * a.g_rows;
    const int64_t count = a.rows - h < a.g_rows ? a.rows - h : a.g_rows;
    ConvImage g = a.g;
    g.size[2] *= count;  // rows that follow each other are one
    const Strip strip{a.n + unit,
                      a.group * a.outputs,
                      a.outputs,
                      {a.first[0], a.first[1] + h, a.first[2]},
                      {1, 1, a.cols * count},
                      {1, 1, 1}};
    load_strip(g, Border::zeros, strip, static_cast<S*>(a.g_strip) + unit * a.g_unit + h * a.g_row,
               a.g_pixel, a.g_row, a.g_unit);
  }
}

template <class F>
HONED_INLINE void with_sums(DType dtype, F&& body) {
  if (dtype == DType::f64)
    body(Tag<double>{});
  else
    body(Tag<float>{});
}

}  // namespace

void conv_gradient_rows(const ConvGradientArgs& a, int64_t begin, int64_t end) {
  with_sums(a.dtype, [&](auto s) {
    for (int64_t item = begin; item < end; ++item) load_row<typename decltype(s)::type>(a, item);
  });
}

void conv_weight_gradient(const ConvGradientArgs& a, int64_t begin, int64_t end) {
  const int64_t tiles = gradient_tile_items(a) - (a.bias ? (a.outputs + kPanel - 1) / kPanel : 0);
  with_sums(a.dtype, [&](auto s) {
    using S = typename decltype(s)::type;
    for (int64_t item = begin; item < end; ++item)
      if (item < tiles)
        weight_item<S>(a, item);
      else
        bias_item<S>(a, item - tiles);
  });
}

void conv_gradient_store(const ConvGradientArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    for (int64_t o = begin; o < end; ++o) store_output<Sum<T>, T>(a, o);
  });
}

HONED_END_LEVEL
