// conv: checks, packed weights, choice of the way, division into strips.
#include "ops/conv.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_conv_weight.h"
#include "ops/_depthwise.h"
#include "ops/_sizes.h"
#include "ops/_winograd.h"
#include "ops/matmul.h"

namespace honed {

namespace {

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
  for (const TensorView* t : {&y, e.residual})
    HONED_CHECK_TYPE(!t || t->dtype == x.dtype, "conv: input is ", name_of(x.dtype),
                     " and another operand ", t ? name_of(t->dtype) : "", ", expected one type");
  HONED_CHECK(!e.residual || same_shape(*e.residual, y), "conv: residual has shape ",
              e.residual ? shape_of(*e.residual) : "", ", expected the output's, ", shape_of(y));
  HONED_CHECK_TYPE(x.dtype != DType::f64 || e.activation <= Activation::relu6,
                   "conv: activation of float64 is not none, relu or relu6, expected one of these");
}

// One call: operands, and the weight in the form of panels with a bias that fits them.
struct Call {
  const TensorView &y, &x;
  const ConvShape& shape;
  const ConvEpilogue& epilogue;
  int64_t channels;
  PackedView w = {};
  const void* bias = nullptr;
  const ConvPart* parts = nullptr;  // nullptr: one, the call
  int64_t part_count = 1;
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

// The pixels of an image, and of all images, as rows a step apart; 0: they are not, or are one
// element again and again (an expanded tensor).
int64_t pixel_step(const TensorView& t, bool of_all) {
  bool first = true;
  int64_t step = 1, expected = 0;
  for (int d : {4, 3, 2, 0}) {
    if (t.size(d) == 1 || (d == 0 && !of_all)) continue;
    if (first)
      step = t.stride(d);
    else if (t.stride(d) != expected)
      return 0;
    first = false;
    expected = t.stride(d) * t.size(d);
  }
  return step;
}

bool is_product(const Call& c) {
  for (int i = 0; i < 3; ++i)
    if (c.shape.kernel[i] != 1 || c.shape.stride[i] != 1 || c.shape.before[i] != 0 ||
        c.y.size(i + 2) != c.x.size(i + 2))
      return false;
  return c.shape.groups == 1 && pixel_step(c.x, false) != 0 && pixel_step(c.y, false) != 0 &&
         (!c.epilogue.residual || pixel_step(*c.epilogue.residual, false) != 0);
}

void product(const Call& c) {
  const TensorView* residual = c.epilogue.residual;
  Destination to = destination_of(c);
  const bool all =
      pixel_step(c.x, true) && pixel_step(c.y, true) && (!residual || pixel_step(*residual, true));
  const int64_t images = all ? 1 : c.x.size(0);
  const int64_t rows = c.y.size(2) * c.y.size(3) * c.y.size(4) * (all ? c.y.size(0) : 1);
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
  ConvPart whole{{}, {}, {}, 0, 0, c.w.data, c.w.panel_bytes};
  std::copy_n(c.shape.kernel, 3, whole.kernel);
  std::copy_n(args.size, 3, whole.size);
  args.parts = c.parts ? c.parts : &whole;
  args.part_count = c.part_count;
  const int64_t strips = args.x.batch * args.size[0] * ceil_div(args.size[1], args.rows) *
                         ceil_div(args.size[2], args.cols) * c.shape.groups;
  const int64_t items = strips * c.part_count * c.w.panels;
  const int64_t operations = c.part_count * c.y.numel() * std::max<int64_t>(8, c.w.k) / 8;
  const int threads = cpu::threads_for(operations);
  const int64_t bytes = conv_scratch_bytes(args);
  Scratch scratch(threads * bytes);
  run_team(threads, [&](const Team& team) {
    ConvArgs own = args;
    own.scratch = scratch.as<char>() + team.rank * bytes;
    cpu::kernels().conv(own, team.begin(items), team.end(items));
  });
}

enum class ConvWay { product, direct, winograd, depthwise };

// packed: forms of the weight are kept. tile: of Winograd.
ConvWay way_of(const Call& c, bool int8, bool packed, bool exact, int* tile) {
  if (c.shape.groups > 1 && c.channels == 1) return ConvWay::depthwise;
  if (int8) return ConvWay::direct;
  if (is_product(c)) return ConvWay::product;
  const ConvShape& s = c.shape;
  const bool three = s.kernel[0] == 1 && s.kernel[1] == 3 && s.kernel[2] == 3 && s.before[0] == 0;
  const bool ones = s.stride[1] == 1 && s.stride[2] == 1 && s.dilation[1] == 1 &&
                    s.dilation[2] == 1 && s.groups == 1 && c.x.size(2) == 1 && c.y.size(2) == 1;
  *tile = !exact && three && ones && c.x.dtype != DType::f64 && c.channels > 0
              ? winograd_tile(c.y, c.x, s, packed)
              : 0;
  return *tile ? ConvWay::winograd : ConvWay::direct;
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

int64_t conv_window_bytes(const ConvArgs& a) {
  const int64_t* k = a.shape.kernel;
  // An input one by one takes 4 bytes; a run 16, and is one of at least 16 inputs or of a pixel.
  const int64_t pieces = k[2] * (ceil_div(a.channels, 16) + 1) + 1;
  return ceil_div(k[0] * k[1] * pieces * 64, 64) * 64;
}

int64_t conv_scratch_bytes(const ConvArgs& a) {
  const int64_t chunk = a.w.kind == WeightKind::int8 ? kConvChunk * kPanel * 4 : 0;
  return ceil_div(conv_window_bytes(a) + chunk + strip_bytes(a), 64) * 64 + 64;
}

int64_t conv_extent(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
                    int64_t after) {
  const int64_t room = size + before + after - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

void conv_parts(const TensorView& y, const TensorView& x, const PackedView& w,
                const ConvShape& shape, const ConvPart* parts, int64_t count,
                const ConvEpilogue& epilogue, const void* bias) {
  direct({y, x, shape, epilogue, x.size(1) / shape.groups, w, bias, parts, count});
}

void conv(const TensorView& y, const TensorView& x, const TensorView& w, const ConvShape& shape,
          const ConvEpilogue& epilogue, bool exact) {
  HONED_CHECK_TYPE(w.dtype == x.dtype, "conv: input is ", name_of(x.dtype), " and weight ",
                   name_of(w.dtype), ", expected one type");
  HONED_CHECK_TYPE(!epilogue.bias || epilogue.bias->dtype == x.dtype, "conv: input is ",
                   name_of(x.dtype), " and bias ",
                   epilogue.bias ? name_of(epilogue.bias->dtype) : "", ", expected one type");
  check(y, x, shape, w.size(0), w.size(1), epilogue);
  if (y.numel() == 0) return;
  Call call{y, x, shape, epilogue, w.size(1)};
  int tile = 0;
  const ConvWay way = way_of(call, false, false, exact, &tile);
  if (way == ConvWay::depthwise) {
    Scratch packed(depthwise_weight_bytes(w));
    depthwise_weight(w, packed.as<void>());
    return depthwise(y, x, packed.as<void>(), shape, epilogue);
  }
  if (way == ConvWay::winograd) {
    Scratch packed(winograd_weight_bytes(tile, w.size(0), w.size(1)));
    winograd_weight(tile, w, packed.as<void>());
    return winograd(y, x, packed.as<float>(), tile, shape, epilogue);
  }
  call.w = conv_panels(x.dtype == DType::f64 ? WeightKind::f64 : WeightKind::f32,
                       w.size(0) / shape.groups, conv_inputs(w));
  Scratch packed(shape.groups * call.w.panels * call.w.panel_bytes);
  pack_conv_weight(w, shape.groups, packed.as<void>());
  call.w.data = packed.as<uint8_t>();
  Scratch bias(epilogue.bias ? padded_bias_bytes(w.size(0), shape.groups, x.dtype) : 0);
  if (epilogue.bias) {
    pad_bias(*epilogue.bias, shape.groups, bias.as<void>());
    call.bias = bias.as<void>();
  }
  way == ConvWay::product ? product(call) : direct(call);
}

void conv(const TensorView& y, const TensorView& x, const ConvWeight& w, const ConvShape& shape,
          const ConvEpilogue& given, bool exact) {
  const ConvWeightSizes& sizes = w.sizes();
  ConvEpilogue epilogue = given;
  epilogue.bias = w.bias();
  check(y, x, shape, sizes.outputs, sizes.channels, epilogue);
  HONED_CHECK_TYPE(sizes.dtype == sum_type(x.dtype), "conv: input is ", name_of(x.dtype),
                   " and the packed weight ", name_of(sizes.dtype),
                   ", expected both or none float64");
  if (y.numel() == 0) return;
  const Call call{y, x, shape, epilogue, sizes.channels, w.panels(), w.padded_bias()};
  int tile = 0;
  switch (way_of(call, w.int8(), true, exact, &tile)) {
    case ConvWay::depthwise:
      return depthwise(y, x, w.depthwise(), shape, epilogue);
    case ConvWay::winograd:
      return winograd(y, x, w.winograd(tile), tile, shape, epilogue);
    case ConvWay::product:
      return product(call);
    case ConvWay::direct:
      return direct(call);
  }
}

}  // namespace honed
