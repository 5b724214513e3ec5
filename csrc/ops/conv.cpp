// conv: checks, packed weights, choice of the way, division into strips.
#include "ops/conv.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/matmul.h"

namespace honed {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
DType sum_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// Bytes of a strip that should stay in the second cache beside a chunk of weights.
constexpr int64_t kStripBytes = 384 << 10;
constexpr int kFewestCols = 28;

void check(const TensorView& y, const TensorView& x, const ConvShape& s, int64_t outputs,
           int64_t channels, const ConvEpilogue& e) {
  HONED_CHECK_TYPE(is_real(x.dtype), "conv: input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK(s.groups > 0 && outputs % s.groups == 0, "conv: weight has ", outputs,
              " output channels, expected a multiple of groups, ", s.groups);
  HONED_CHECK(x.size(1) == channels * s.groups, "conv: input has ", x.size(1),
              " channels, expected ", channels * s.groups, " (groups ", s.groups,
              " times the weight's ", channels, ")");
  HONED_CHECK(y.size(0) == x.size(0) && y.size(1) == outputs, "conv: output has shape ",
              shape_of(y), ", expected [", x.size(0), ", ", outputs, ", ...]");
  HONED_CHECK(!e.bias || (e.bias->ndim == 1 && e.bias->size(0) == outputs), "conv: bias has shape ",
              e.bias ? shape_of(*e.bias) : "", ", expected [", outputs, "]");
  for (const TensorView* t : {&y, e.bias, e.residual})
    HONED_CHECK_TYPE(!t || t->dtype == x.dtype, "conv: input is ", name_of(x.dtype),
                     " and another operand ", t ? name_of(t->dtype) : "", ", expected one type");
  HONED_CHECK(!e.residual || same_shape(*e.residual, y), "conv: residual has shape ",
              e.residual ? shape_of(*e.residual) : "", ", expected the output's, ", shape_of(y));
  HONED_CHECK_TYPE(x.dtype != DType::f64 || e.activation <= Activation::relu6,
                   "conv: activation of float64 is not none, relu or relu6, expected one of these");
}

// Panels of all groups: sizes, no memory yet.
PackedView layout_of(WeightKind kind, int64_t outputs, int64_t inputs) {
  PackedView w{};
  w.kind = kind;
  w.n = outputs;
  w.k = w.k_padded = inputs;
  w.panels = ceil_div(outputs, kPanel);
  w.panel_bytes = inputs * kPanel *
                  (kind == WeightKind::f64    ? 8
                   : kind == WeightKind::int8 ? 1
                                              : 4);
  return w;
}

int64_t inputs_of(const TensorView& w) { return w.size(1) * w.size(2) * w.size(3) * w.size(4); }

void pack(const TensorView& w, int64_t groups, void* to) {
  ConvWeightArgs args{
      w.data, w.dtype, w.size(0) / groups, w.size(1), {}, w.stride(0), w.stride(1), {}, 0, to};
  for (int i = 0; i < 3; ++i) {
    args.kernel[i] = w.size(i + 2);
    args.k[i] = w.stride(i + 2);
  }
  args.panels = ceil_div(args.outputs, kPanel);
  cpu::run(cpu::kernels().conv_weight, args, groups * args.panels,
           cpu::grain_for(kPanel * inputs_of(w) / 4));
}

// A bias with whole panels in every group.
template <class S>
void pad_bias(const TensorView& bias, int64_t groups, S* to) {
  const int64_t outputs = bias.size(0) / groups, padded = ceil_div(outputs, kPanel) * kPanel;
  std::fill_n(to, groups * padded, S(0));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t o = 0; o < outputs; ++o) {
      const int64_t at = (g * outputs + o) * bias.stride(0);
      to[g * padded + o] = S(bias.dtype == DType::f64 ? bias.as<double>()[at] : element(bias, at));
    }
}
int64_t padded_bias_bytes(int64_t outputs, int64_t groups, DType dtype) {
  return groups * ceil_div(outputs / groups, kPanel) * kPanel * size_of(sum_type(dtype));
}
void pad_bias_any(const TensorView& bias, int64_t groups, void* to) {
  if (bias.dtype == DType::f64)
    pad_bias(bias, groups, static_cast<double*>(to));
  else
    pad_bias(bias, groups, static_cast<float*>(to));
}

// One call: operands, and the weight in the form of panels.
struct Call {
  const TensorView &y, &x;
  ConvShape shape;
  PackedView w;
  int64_t channels;
  const void* bias;
  const ConvEpilogue& epilogue;
};

Destination destination_of(const Call& c) {
  Destination to{};
  to.y = c.y.data;
  to.y_row = c.y.stride(4);
  to.y_col = c.y.stride(1);
  to.dtype = c.y.dtype;
  to.activation = c.epilogue.activation;
  to.bias = c.bias;
  to.residual_first = true;
  if (const TensorView* r = c.epilogue.residual) {
    to.residual = r->data;
    to.residual_row = r->stride(4);
    to.residual_col = r->stride(1);
  }
  return to;
}

// The pixels of an image, and of all images, as rows a step apart; 0: they are not.
int64_t pixel_step(const TensorView& t, bool of_all) {
  int64_t step = 0, expected = 0;
  for (int d : {4, 3, 2, 0}) {
    if (t.size(d) == 1 || (d == 0 && !of_all)) continue;
    if (step == 0)
      step = t.stride(d);
    else if (t.stride(d) != expected)
      return 0;
    expected = t.stride(d) * t.size(d);
  }
  return step == 0 ? 1 : step;
}

bool is_product(const Call& c) {
  for (int i = 0; i < 3; ++i)
    if (c.shape.kernel[i] != 1 || c.shape.stride[i] != 1 || c.shape.before[i] != 0 ||
        c.y.size(i + 2) != c.x.size(i + 2))
      return false;
  return c.shape.groups == 1 && c.w.kind != WeightKind::int8 && pixel_step(c.x, false) != 0 &&
         pixel_step(c.y, false) != 0 &&
         (!c.epilogue.residual || pixel_step(*c.epilogue.residual, false) != 0);
}

void product(const Call& c) {
  const TensorView* residual = c.epilogue.residual;
  Destination to = destination_of(c);
  const bool all =
      pixel_step(c.x, true) && pixel_step(c.y, true) && (!residual || pixel_step(*residual, true));
  const int64_t images = all ? 1 : c.x.size(0);
  const int64_t rows = c.x.numel() / c.x.size(1) / images;
  to.y_row = pixel_step(c.y, all);
  if (residual) to.residual_row = pixel_step(*residual, all);
  const Strided x{c.x.data, c.x.dtype, pixel_step(c.x, all), c.x.stride(1)};
  const int64_t size = size_of(c.x.dtype);
  auto some = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Strided image = x;
      image.data = static_cast<const char*>(x.data) + i * c.x.stride(0) * size;
      Destination one = to;
      one.y = static_cast<char*>(to.y) + i * c.y.stride(0) * size;
      if (residual)
        one.residual = static_cast<const char*>(to.residual) + i * residual->stride(0) * size;
      multiply(image, rows, c.w, one, {});
    }
  };
  if (images >= 2 * num_threads())
    parallel_for(images, cpu::grain_for(rows * c.w.n * c.w.k / 8), some);
  else
    some(0, images);
}

// Rows whose lines fall on the same sets of the first cache push each other out of it.
bool rows_collide(int64_t stride_bytes) { return stride_bytes % 2048 == 0; }

int64_t strip_bytes(const ConvArgs& a) {
  return conv_strip_extent(a, 0, 1) * conv_strip_extent(a, 1, a.rows) *
         conv_strip_extent(a, 2, a.cols) * a.pixel * size_of(sum_type(a.x.dtype));
}

void divide(ConvArgs& a) {
  const int64_t size = size_of(sum_type(a.x.dtype));
  for (int i = 0; i < 3; ++i) a.step[i] = a.shape.kernel[i] == 1 ? a.shape.stride[i] : 1;
  const int64_t stride = a.step[2] == 1 ? a.shape.stride[2] : 1;
  a.pixel = a.channels;
  if (rows_collide(stride * a.pixel * size)) a.pixel += 64 / size;
  auto even = [](int64_t whole, int64_t most) { return ceil_div(whole, ceil_div(whole, most)); };
  a.rows = 1;
  a.cols = even(a.size[2], kBlockRows);
  while (a.cols > kFewestCols && strip_bytes(a) > 2 * kStripBytes)
    a.cols = even(a.size[2], (a.cols + 1) / 2);
  while (a.rows < a.size[1] && (a.rows + 1) * a.cols <= kBlockRows) {
    ++a.rows;
    if (strip_bytes(a) > kStripBytes) {
      --a.rows;
      break;
    }
  }
  a.rows = even(a.size[1], a.rows);
}

void direct(const Call& c) {
  ConvArgs args{};
  args.x = image_of(c.x);
  args.shape = c.shape;
  args.channels = c.channels;
  args.w = c.w;
  args.to = destination_of(c);
  args.y_n = c.y.stride(0);
  if (c.epilogue.residual) args.residual_n = c.epilogue.residual->stride(0);
  for (int i = 0; i < 3; ++i) {
    args.size[i] = c.y.size(i + 2);
    args.y_s[i] = c.y.stride(i + 2);
    if (c.epilogue.residual) args.residual_s[i] = c.epilogue.residual->stride(i + 2);
  }
  divide(args);
  const int64_t strips = args.x.batch * args.size[0] * ceil_div(args.size[1], args.rows) *
                         ceil_div(args.size[2], args.cols) * c.shape.groups;
  const int64_t items = strips * c.w.panels;
  const int64_t operations = c.y.numel() * std::max<int64_t>(8, c.w.k) / 8;
  const int threads = cpu::threads_for(operations);
  const int64_t bytes = conv_scratch_bytes(args);
  Scratch scratch(threads * bytes);
  run_team(threads, [&](const Team& team) {
    ConvArgs own = args;
    own.scratch = scratch.as<char>() + team.rank * bytes;
    cpu::kernels().conv(own, team.begin(items), team.end(items));
  });
}

void run(const Call& c) {
  if (is_product(c)) return product(c);
  direct(c);
}

}  // namespace

ConvImage image_of(const TensorView& t) {
  ConvImage image{t.data, t.dtype, t.size(0), t.size(1), {}, t.stride(0), t.stride(1), {}};
  for (int i = 0; i < 3; ++i) {
    image.size[i] = t.size(i + 2);
    image.s[i] = t.stride(i + 2);
  }
  return image;
}

int64_t conv_strip_extent(const ConvArgs& a, int axis, int64_t count) {
  if (a.step[axis] != 1) return count;
  const ConvShape& s = a.shape;
  return std::max<int64_t>(
      0, (count - 1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis] + 1);
}

int64_t conv_runs(const ConvArgs& a) {
  const int64_t* k = a.shape.kernel;
  const int64_t pieces = ceil_div(k[2] * a.channels, 64) + k[2];  // of a row, at most
  return ceil_div(k[0] * k[1] * pieces, 4) * 4;
}

int64_t conv_scratch_bytes(const ConvArgs& a) {
  const int64_t chunk = a.w.kind == WeightKind::int8 ? 384 * kPanel * 4 : 0;
  return ceil_div(conv_runs(a) * 16 + chunk + strip_bytes(a), 64) * 64 + 64;
}

int64_t conv_extent(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
                    int64_t after) {
  const int64_t room = size + before + after - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

ConvWeight::ConvWeight(const TensorView& w, const TensorView* bias, int64_t groups_, bool int8)
    : outputs(w.size(0)), channels(w.size(1)), groups(groups_), dtype(sum_type(w.dtype)) {
  HONED_CHECK_TYPE(is_real(w.dtype) && (!int8 || w.dtype != DType::f64), "conv: weight is ",
                   name_of(w.dtype), ", expected float32, float16 or bfloat16");
  HONED_CHECK(groups > 0 && outputs % groups == 0, "conv: weight has ", outputs,
              " output channels, expected a multiple of groups, ", groups);
  HONED_CHECK(!bias || (bias->ndim == 1 && bias->size(0) == outputs), "conv: bias has shape ",
              bias ? shape_of(*bias) : "", ", expected [", outputs, "]");
  for (int i = 0; i < 3; ++i) kernel[i] = w.size(i + 2);
  const int64_t inputs = inputs_of(w), each = outputs / groups;
  panels_ = layout_of(int8                  ? WeightKind::int8
                      : dtype == DType::f64 ? WeightKind::f64
                                            : WeightKind::f32,
                      each, inputs);
  const int64_t count = groups * panels_.panels;
  bytes_ = count * panels_.panel_bytes;
  data_ = allocate_packed(bytes_);
  if (int8) {
    scales_ = allocate_packed(count * kPanel * 4);
    Scratch exact(count * inputs * kPanel * 4);
    pack(w, groups, exact.as<void>());
    for (int64_t p = 0; p < count; ++p)
      for (int c = 0; c < kPanel; ++c) {
        const float* from = exact.as<float>() + p * inputs * kPanel + c;
        float largest = 0;
        for (int64_t i = 0; i < inputs; ++i)
          largest = std::max(largest, std::fabs(from[i * kPanel]));
        const float scale = largest > 0 ? largest / 127 : 1;
        reinterpret_cast<float*>(scales_.get())[p * kPanel + c] = scale;
        for (int64_t i = 0; i < inputs; ++i)
          reinterpret_cast<int8_t*>(data_.get())[(p * inputs + i) * kPanel + c] =
              int8_t(std::lrint(from[i * kPanel] / scale));
      }
    panels_.scales = reinterpret_cast<const float*>(scales_.get());
  } else {
    pack(w, groups, data_.get());
  }
  panels_.data = data_.get();
  if (bias) {
    bias_ = allocate_packed(padded_bias_bytes(outputs, groups, dtype));
    pad_bias_any(*bias, groups, bias_.get());
  }
}

int64_t ConvWeight::bytes() const { return bytes_; }

void conv(const TensorView& y, const TensorView& x, const TensorView& w, const ConvShape& shape,
          const ConvEpilogue& epilogue, bool) {
  HONED_CHECK_TYPE(w.dtype == x.dtype, "conv: input is ", name_of(x.dtype), " and weight ",
                   name_of(w.dtype), ", expected one type");
  check(y, x, shape, w.size(0), w.size(1), epilogue);
  if (y.numel() == 0) return;
  PackedView panels = layout_of(x.dtype == DType::f64 ? WeightKind::f64 : WeightKind::f32,
                                w.size(0) / shape.groups, inputs_of(w));
  Scratch packed(shape.groups * panels.panels * panels.panel_bytes);
  pack(w, shape.groups, packed.as<void>());
  panels.data = packed.as<uint8_t>();
  Scratch bias(epilogue.bias ? padded_bias_bytes(w.size(0), shape.groups, x.dtype) : 0);
  if (epilogue.bias) pad_bias_any(*epilogue.bias, shape.groups, bias.as<void>());
  run({y, x, shape, panels, w.size(1), epilogue.bias ? bias.as<void>() : nullptr, epilogue});
}

void conv(const TensorView& y, const TensorView& x, const ConvWeight& w, const ConvShape& shape,
          const ConvEpilogue& epilogue, bool) {
  check(y, x, shape, w.outputs, w.channels, epilogue);
  HONED_CHECK_TYPE(w.dtype == sum_type(x.dtype), "conv: input is ", name_of(x.dtype),
                   " and the packed weight ", name_of(w.dtype), ", expected both or none float64");
  if (y.numel() == 0) return;
  run({y, x, shape, w.panels(), w.channels, w.bias(), epilogue});
}

}  // namespace honed
