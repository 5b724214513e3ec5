// depthwise: the weight's order, the choice of way, the gradient of the input as convolutions.
#include "ops/_depthwise.h"

#include <algorithm>
#include <numeric>

#include "core/arena.h"
#include "cpu/dispatch.h"
#include "ops/_norm.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

// Every m-th channel; N, C, D, H, W.
ConvImage channels_of(const TensorView& t, int64_t m) {
  return {t.data,
          t.dtype,
          t.size(0),
          t.size(1) / m,
          {t.size(2), t.size(3), t.size(4)},
          t.stride(0),
          t.stride(1) * m,
          {t.stride(2), t.stride(3), t.stride(4)}};
}

void* moved(const TensorView& t, int64_t elements) {
  return t.as<char>() + elements * size_of(t.dtype);
}

// [tap][c m + j] -> [tap][j][c]
template <class S>
void part_channels(const S* from, int64_t taps, int64_t channels, int64_t m, S* to) {
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t j = 0; j < m; ++j)
      for (int64_t c = 0; c < channels; ++c) *to++ = from[(t * channels + c) * m + j];
}

// Packed weights as the kernels want them.
class Weights {
 public:
  Weights(const void* packed, DType dtype, int64_t taps, int64_t channels, int64_t m)
      : copy_(m == 1 ? 0 : taps * channels * m * size_of(sum_type(dtype))), data_(packed) {
    if (m == 1) return;
    data_ = copy_.as<void>();
    if (dtype == DType::f64)
      part_channels(static_cast<const double*>(packed), taps, channels, m, copy_.as<double>());
    else
      part_channels(static_cast<const float*>(packed), taps, channels, m, copy_.as<float>());
  }
  const void* data() const { return data_; }

 private:
  Scratch copy_;
  const void* data_;
};

void set_shape(DepthwiseArgs& a, const ConvShape& shape, int64_t outputs) {
  for (int i = 0; i < 3; ++i) {
    a.kernel[i] = shape.kernel[i];
    a.stride[i] = shape.stride[i];
    a.dilation[i] = shape.dilation[i];
    a.before[i] = shape.before[i];
  }
  a.border = shape.border;
  a.w_tap[2] = outputs;
  a.w_tap[1] = shape.kernel[2] * a.w_tap[2];
  a.w_tap[0] = shape.kernel[1] * a.w_tap[1];
}

void set_result(DepthwiseArgs& a, const TensorView& y, int64_t m) {
  a.y = y.data;
  a.y_n = y.stride(0);
  a.y_c = y.stride(1) * m;
  for (int i = 0; i < 3; ++i) {
    a.y_s[i] = y.stride(2 + i);
    a.size[i] = y.size(2 + i);
  }
}

int64_t extent(const DepthwiseArgs& a, int axis, int64_t outputs) {
  return (outputs - 1) * a.stride[axis] + (a.kernel[axis] - 1) * a.dilation[axis] + 1;
}

constexpr int64_t kItems = 32;  // at least, where there is work for so many

void run_channels(DepthwiseArgs& a) {
  const int64_t rows = a.x.batch * a.size[0] * a.size[1];
  a.block[0] = a.x.channels;
  a.block[2] = a.size[2];
  // Long rows in pieces; then channels, by lines of the cache.
  constexpr int64_t kColumns = 28, kChannels = 16;
  if (rows < kItems)
    a.block[2] = std::min(a.size[2], std::max(kColumns, ceil_div(a.size[2] * rows, kItems)));
  const int64_t of_block = rows * ceil_div(a.size[2], a.block[2]);
  if (of_block < kItems)
    a.block[0] =
        ceil_div(ceil_div(a.x.channels, ceil_div(kItems, of_block)), kChannels) * kChannels;
  const int64_t bytes = a.planes * a.kernel[0] * a.kernel[1] * 16;
  const int64_t work =
      a.block[0] * a.block[2] * a.planes * a.kernel[0] * a.kernel[1] * a.kernel[2] / 8;
  parallel_for(of_block * ceil_div(a.x.channels, a.block[0]), cpu::grain_for(work),
               [&, bytes](int64_t begin, int64_t end) {
                 Scratch scratch(bytes);
                 DepthwiseArgs mine = a;
                 mine.scratch = scratch.as<void>();
                 cpu::kernels().depthwise(mine, begin, end);
               });
}

// How the rows that a block of outputs reads lie in the scratch; how many bytes.
int64_t lay_out(DepthwiseArgs& a) {
  constexpr int64_t kColumns = 1024, kTile = 7, kMost = 6144, kVectors = 64;
  const int64_t planes = a.planes * a.kernel[0];
  DepthwiseCopy& copy = a.copy;
  a.block[2] = std::min(a.size[2], kColumns);
  copy.pitch = ceil_div(std::max<int64_t>(extent(a, 2, a.block[2]), 1), a.stride[2]);
  copy.pitch = ceil_div(copy.pitch, 16) * 16;
  copy.row = copy.pitch * a.stride[2];
  auto elements = [&](int64_t rows) { return planes * extent(a, 1, rows) * copy.row; };
  a.block[1] = std::min(a.size[1], ceil_div(kMost, copy.row * kTile) * kTile);
  while (a.block[1] > kTile && elements(a.block[1]) > kMost)
    a.block[1] = (a.block[1] - 1) / kTile * kTile;
  const bool dense = a.block[1] > 1 && elements(a.block[1]) <= 8 * kMost;
  if (!dense) a.block[1] = 1;
  copy.plane = copy.row * std::max<int64_t>(dense ? extent(a, 1, a.block[1]) : a.kernel[1], 0);
  copy.next_row = dense ? copy.row * a.stride[1] : 0;
  copy.taps = planes * a.kernel[1] * a.kernel[2];
  copy.data = ceil_div(copy.taps * 24, 64) * 64;
  copy.elements = planes * copy.plane + copy.row + kVectors + copy.pitch;
  return copy.data + copy.elements * size_of(sum_type(a.x.dtype));
}

void run_rows(DepthwiseArgs& a) {
  const int64_t bytes = lay_out(a);
  const int64_t items = a.x.batch * a.x.channels * a.size[0] * ceil_div(a.size[1], a.block[1]) *
                        ceil_div(a.size[2], a.block[2]);
  const int64_t work = a.block[1] * a.block[2] * (a.copy.taps + 4) / 8;
  parallel_for(items, cpu::grain_for(work), [&, bytes](int64_t begin, int64_t end) {
    Scratch scratch(bytes);
    DepthwiseArgs mine = a;
    mine.scratch = scratch.as<void>();
    cpu::kernels().depthwise_rows(mine, begin, end);
  });
}

bool is_side_by_side(const ConvImage& x) {
  constexpr int64_t kFewChannels = 4;
  return x.c == 1 && x.channels >= kFewChannels;
}

void run(DepthwiseArgs& a) {
  if (a.x.batch * a.x.channels * a.size[0] * a.size[1] * a.size[2] == 0) return;
  if (is_side_by_side(a.x))
    run_channels(a);
  else
    run_rows(a);
}

float narrowed(float x, float) { return x; }
double narrowed(double x, double) { return x; }
f16 narrowed(float x, f16) { return to_f16(x); }
bf16 narrowed(float x, bf16) { return to_bf16(x); }

// [tap][j][c] to dw[c m + j][tap]
template <class T, class S>
void give(const TensorView& dw, const S* from, int64_t channels) {
  const int64_t outputs = dw.size(0), m = outputs / channels;
  const int64_t taps = dw.size(2) * dw.size(3) * dw.size(4);
  parallel_for(channels, cpu::grain_for(m * taps * 2), [&](int64_t begin, int64_t end) {
    for (int64_t d = 0; d < dw.size(2); ++d)
      for (int64_t h = 0; h < dw.size(3); ++h)
        for (int64_t w = 0; w < dw.size(4); ++w) {
          const int64_t tap = (d * dw.size(3) + h) * dw.size(4) + w;
          T* to = dw.as<T>() + d * dw.stride(2) + h * dw.stride(3) + w * dw.stride(4);
          for (int64_t j = 0; j < m; ++j)
            for (int64_t c = begin; c < end; ++c)
              to[(c * m + j) * dw.stride(0)] =
                  narrowed(from[tap * outputs + j * channels + c], T{});
        }
  });
}

// Outputs q = phase + i stride of the gradient: y[q] = sum_t w[first + t step] g[i + t dilation -
// before], t < taps.
struct Phase {
  int64_t taps = 0, first = 0, step = 1, dilation = 1, before = 0;
};
Phase phase_of(const ConvShape& shape, int axis, int64_t phase) {
  const int64_t stride = shape.stride[axis], dilation = shape.dilation[axis];
  const int64_t at = phase + shape.before[axis], common = std::gcd(stride, dilation);
  Phase p;
  p.dilation = dilation / common;
  int64_t k = 0;
  while (k < shape.kernel[axis] && (at - k * dilation) % stride) ++k;
  if (k == shape.kernel[axis]) return p;
  const int64_t step = stride / common;
  p.taps = (shape.kernel[axis] - 1 - k) / step + 1;
  p.first = k + (p.taps - 1) * step;
  p.step = -step;
  p.before = (p.taps - 1) * p.dilation - (at - k * dilation) / stride;
  return p;
}

}  // namespace

bool is_depthwise(const TensorView& x, const TensorView& w, const ConvShape& shape) {
  return shape.groups == x.size(1) && w.size(1) == 1 && w.size(0) % shape.groups == 0 &&
         (shape.groups > 1 || w.size(0) == 1);
}

int64_t depthwise_weight_bytes(const TensorView& w) {
  return w.numel() * size_of(sum_type(w.dtype));
}

void depthwise_weight(const TensorView& w, void* to) {
  DepthwiseWeightArgs args{w.data, w.dtype, w.size(0), w.stride(0), {}, {}, to};
  for (int i = 0; i < 3; ++i) {
    args.kernel[i] = w.size(2 + i);
    args.k[i] = w.stride(2 + i);
  }
  const int64_t taps = args.kernel[0] * args.kernel[1] * args.kernel[2];
  cpu::run(cpu::kernels().depthwise_weight, args, ceil_div(args.outputs, kDepthwiseItem),
           cpu::grain_for(taps * kDepthwiseItem / 4));
}

void depthwise(const TensorView& y, const TensorView& x, const void* packed, const ConvShape& shape,
               const ConvEpilogue& epilogue) {
  const int64_t outputs = y.size(1), channels = x.size(1), m = outputs / channels;
  const int64_t taps = shape.kernel[0] * shape.kernel[1] * shape.kernel[2];
  const Weights weights(packed, x.dtype, taps, channels, m);
  const DType wide = sum_type(x.dtype);
  const int64_t bytes = size_of(wide);
  const TensorView* given = epilogue.bias;
  const bool ready = given && given->dtype == wide && given->stride(0) == 1;
  Scratch copy(given && !ready ? outputs * bytes : 0);
  if (given && !ready)
    for (int64_t o = 0; o < outputs; ++o) {
      if (wide == DType::f64)
        copy.as<double>()[o] = given->as<double>()[o * given->stride(0)];
      else
        copy.as<float>()[o] = element(*given, o * given->stride(0));
    }
  const char* bias = ready ? given->as<char>() : copy.as<char>();
  for (int64_t j = 0; j < m; ++j) {
    DepthwiseArgs a{};
    a.x = channels_of(x, 1);
    a.planes = 1;
    set_shape(a, shape, outputs);
    set_result(a, y, m);
    a.y = moved(y, j * y.stride(1));
    a.w = static_cast<const char*>(weights.data()) + j * channels * bytes;
    a.activation = epilogue.activation;
    if (given) a.bias = bias + j * bytes;
    a.bias_c = m;
    if (const TensorView* r = epilogue.residual) {
      a.residual = moved(*r, j * r->stride(1));
      a.residual_n = r->stride(0);
      a.residual_c = r->stride(1) * m;
      for (int i = 0; i < 3; ++i) a.residual_s[i] = r->stride(2 + i);
    }
    run(a);
  }
}

void depthwise_input_gradient(const TensorView& dx, const TensorView& g, const void* packed,
                              const ConvShape& shape) {
  const int64_t outputs = g.size(1), channels = dx.size(1), m = outputs / channels;
  const int64_t taps = shape.kernel[0] * shape.kernel[1] * shape.kernel[2];
  const Weights weights(packed, dx.dtype, taps, channels, m);
  DepthwiseArgs whole{};
  whole.x = channels_of(g, m);
  whole.planes = m;
  whole.x_plane = g.stride(1);
  whole.w_plane = channels;
  whole.w = weights.data();
  set_shape(whole, shape, outputs);
  set_result(whole, dx, 1);
  const int64_t phases = shape.stride[0] * shape.stride[1] * shape.stride[2];
  for (int64_t phase = 0; phase < phases; ++phase) {
    const int64_t at[3] = {phase / (shape.stride[1] * shape.stride[2]),
                           phase / shape.stride[2] % shape.stride[1], phase % shape.stride[2]};
    DepthwiseArgs a = whole;
    a.border = Border::zeros;
    int64_t first = 0, y_first = 0;
    for (int i = 0; i < 3; ++i) {
      const Phase p = phase_of(shape, i, at[i]);
      a.kernel[i] = p.taps;
      a.stride[i] = 1;
      a.dilation[i] = p.dilation;
      a.before[i] = p.before;
      a.size[i] = at[i] < whole.size[i] ? ceil_div(whole.size[i] - at[i], shape.stride[i]) : 0;
      first += p.first * whole.w_tap[i];
      a.w_tap[i] = p.step * whole.w_tap[i];
      y_first += at[i] * whole.y_s[i];
      a.y_s[i] = whole.y_s[i] * shape.stride[i];
    }
    if (!(a.kernel[0] && a.kernel[1] && a.kernel[2]))  // nothing meets these: zeros
      for (int i = 0; i < 3; ++i) {
        a.kernel[i] = i > 0;
        a.before[i] = 0;
      }
    a.y = moved(dx, y_first);
    a.w = static_cast<const char*>(weights.data()) + first * size_of(sum_type(dx.dtype));
    run(a);
  }
  if (shape.border == Border::zeros || dx.numel() == 0) return;
  const int64_t rows = dx.size(0) * dx.size(2) * dx.size(3);
  cpu::run(cpu::kernels().depthwise_fold, DepthwiseFoldArgs{whole}, rows,
           cpu::grain_for(dx.size(1) * dx.size(4)));
}

void depthwise_weight_gradient(const TensorView& dw, const TensorView& g, const TensorView& x,
                               const ConvShape& shape) {
  const int64_t outputs = g.size(1), channels = x.size(1), m = outputs / channels;
  const int64_t taps = shape.kernel[0] * shape.kernel[1] * shape.kernel[2];
  DepthwiseSumsArgs args{};
  DepthwiseArgs& a = args.conv;
  a.x = channels_of(x, 1);
  a.planes = 1;
  set_shape(a, shape, outputs);
  set_result(a, g, m);
  args.g = channels_of(g, m);
  args.planes = m;
  args.g_plane = g.stride(1);
  const bool side_by_side = is_side_by_side(a.x) && (args.g.c == 1);
  const int64_t scratch = side_by_side ? a.kernel[0] * a.kernel[1] * m * 24 : lay_out(a);
  const int64_t units = side_by_side ? a.x.batch * a.size[0] * a.size[1]
                                     : a.x.batch * a.size[0] * ceil_div(a.size[1], a.block[1]) *
                                           ceil_div(a.size[2], a.block[2]);
  constexpr int64_t kParts = 16, kChannels = 256;
  const int64_t most = side_by_side ? kParts : std::min(kParts, ceil_div(4 * kParts, channels));
  args.part = std::max<int64_t>(1, ceil_div(units, most));
  args.parts = std::max<int64_t>(1, ceil_div(units, args.part));
  a.block[0] = std::min(channels, kChannels);
  const int64_t bytes = size_of(sum_type(x.dtype)), count = taps * outputs;
  Scratch sums((args.parts + 1) * count * bytes);
  args.sums = sums.as<char>() + count * bytes;
  const int64_t items = args.parts * (side_by_side ? ceil_div(channels, a.block[0]) : channels);
  const int64_t work = g.numel() / std::max<int64_t>(items, 1) * taps / 8;
  parallel_for(items, cpu::grain_for(work), [&, scratch](int64_t begin, int64_t end) {
    Scratch own(scratch);
    DepthwiseSumsArgs mine = args;
    mine.conv.scratch = own.as<void>();
    if (side_by_side)
      cpu::kernels().depthwise_sums(mine, begin, end);
    else
      cpu::kernels().depthwise_row_sums(mine, begin, end);
  });
  TensorView total{};
  total.data = sums.as<void>();
  total.ndim = 1;
  total.shape[0] = count;
  total.strides[0] = 1;
  total.dtype = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  add_columns(args.sums, args.parts, total);
  if (dw.dtype == DType::f64)
    give<double>(dw, sums.as<double>(), channels);
  else if (dw.dtype == DType::f32)
    give<float>(dw, sums.as<float>(), channels);
  else if (dw.dtype == DType::f16)
    give<f16>(dw, sums.as<float>(), channels);
  else
    give<bf16>(dw, sums.as<float>(), channels);
}

}  // namespace honed
