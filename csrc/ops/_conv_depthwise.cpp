// A 1 x 1 convolution joined to a depthwise one.
#include "ops/_conv_depthwise.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_depthwise.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

// Bytes of the rows between the two: they stay in the second cache.
constexpr int64_t kBetween = 256 << 10;

void check(const TensorView& y, const TensorView& x, const ConvWeight& first,
           const ConvWeight& second, const ConvShape& s) {
  const ConvWeightSizes &a = first.sizes(), &b = second.sizes();
  HONED_CHECK_TYPE(x.dtype == DType::f32 && y.dtype == DType::f32 && !first.int8(),
                   "conv_depthwise: input is ", name_of(x.dtype), ", expected float32");
  HONED_CHECK(a.kernel[0] * a.kernel[1] * a.kernel[2] == 1 && a.groups == 1 &&
                  a.channels == x.size(1) && !first.depthwise(),
              "conv_depthwise: the first kernel is not 1 x 1 over input's ", x.size(1),
              " channels, expected that");
  HONED_CHECK(second.depthwise() && b.outputs == a.outputs && b.groups == a.outputs &&
                  s.border == Border::zeros && x.size(2) == 1 && y.size(2) == 1,
              "conv_depthwise: the second kernel is not depthwise over ", a.outputs,
              " channels of an image with a border of zeros, expected that");
  HONED_CHECK(x.stride(1) == 1 && (x.size(3) == 1 || x.stride(3) == x.size(4) * x.stride(4)),
              "conv_depthwise: input's channels do not lie side by side, expected channels_last");
}

// A view of some channels and rows of an image.
TensorView part_of(const TensorView& t, int64_t n, int64_t channel, int64_t channels, int64_t row,
                   int64_t rows) {
  TensorView part = t;
  part.data = t.as<float>() + n * t.stride(0) + channel * t.stride(1) + row * t.stride(3);
  part.shape[0] = 1;
  part.shape[1] = channels;
  part.shape[3] = rows;
  return part;
}

}  // namespace

void conv_depthwise(const TensorView& y, const TensorView& x, const ConvWeight& first,
                    Activation act, const ConvWeight& second, const ConvShape& shape,
                    const ConvEpilogue& given) {
  check(y, x, first, second, shape);
  if (y.numel() == 0) return;
  const PackedView& w = first.panels();
  const int64_t width = x.size(4), height = x.size(3), outputs = w.n, stride = shape.stride[1];
  const int64_t reach = (shape.kernel[1] - 1) * shape.dilation[1] + 1;
  const int64_t taps = shape.kernel[1] * shape.kernel[2];
  // Rows of y that an item makes: all, or as many as leave few rows to be made twice.
  const int64_t fit = kBetween / (width * kPanel * 4);
  int64_t rows = y.size(3);
  if (fit < height) rows = std::min(rows, std::max<int64_t>(1, (fit - reach) / stride + 1));
  int64_t blocks = ceil_div(y.size(3), rows);
  for (int i = 0; i < 3 && x.size(0) * blocks * w.panels % 4 != 0; ++i)  // as many for each thread
    blocks = std::min(blocks + 1, y.size(3));
  rows = ceil_div(y.size(3), blocks);
  const int64_t between = std::min(height, (rows - 1) * stride + reach) * width * kPanel;
  const int64_t items = x.size(0) * blocks * w.panels;
  const int threads = cpu::threads_for(x.numel() / 8 * outputs);
  const int64_t floats = ceil_div(between + taps * kPanel, 16) * 16;
  Scratch scratch(threads * floats * 4);
  const cpu::KernelTable& kernels = cpu::kernels();
  run_team(threads, [&](const Team& team) {
    float* middle = scratch.as<float>() + team.rank * floats;
    float* kernel = middle + between;
    const int64_t end = team.end(items);
    for (int64_t item = team.begin(items); item < end; ++item) {
      const int64_t panel = item % w.panels, block = item / w.panels % blocks;
      const int64_t n = item / w.panels / blocks, channel = panel * kPanel;
      const int64_t channels = std::min<int64_t>(kPanel, outputs - channel);
      const int64_t row = y.size(3) * block / blocks;
      const int64_t count = y.size(3) * (block + 1) / blocks - row;
      // Rows [low, high) of the image between them.
      const int64_t reads = row * stride - shape.before[1];
      const int64_t low = std::clamp<int64_t>(reads, 0, height);
      const int64_t high = std::clamp<int64_t>(reads + (count - 1) * stride + reach, low, height);
      PackedView one = w;
      one.data += panel * w.panel_bytes;
      one.n = channels;
      one.panels = 1;
      const int64_t pixels = (high - low) * width;
      LinearArgs args{one,
                      {x.as<float>() + n * x.stride(0) + low * x.stride(3), x.stride(4)},
                      pixels,
                      {middle, kPanel, 1, DType::f32}};
      args.to.activation = act;
      if (first.padded_bias())
        args.to.bias = static_cast<const float*>(first.padded_bias()) + channel;
      kernels.linear(args, 0, linear_items(one, pixels));
      const float* weights = static_cast<const float*>(second.depthwise());
      for (int64_t t = 0; t < taps; ++t)
        std::copy_n(weights + t * outputs + channel, channels, kernel + t * channels);
      TensorView image = x;
      image.data = middle;
      const int64_t strides[] = {0, 1, 0, width * kPanel, kPanel};
      std::copy_n(strides, 5, image.strides);
      image.shape[0] = 1;
      image.shape[1] = channels;
      image.shape[3] = high - low;
      ConvShape s = shape;
      s.groups = channels;
      s.before[1] = low - reads;
      ConvEpilogue epilogue{nullptr, nullptr, given.activation};
      TensorView bias, residual;
      if (second.bias()) {
        bias = *second.bias();
        bias.data = bias.as<float>() + channel;
        bias.shape[0] = channels;
        epilogue.bias = &bias;
      }
      if (given.residual) {
        residual = part_of(*given.residual, n, channel, channels, row, count);
        epilogue.residual = &residual;
      }
      depthwise(part_of(y, n, channel, channels, row, count), image, kernel, s, epilogue);
    }
  });
}

}  // namespace honed
