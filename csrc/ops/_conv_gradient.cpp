// The weight's gradient of a convolution: how the pixels are divided into steps.
#include "ops/_conv_gradient.h"

#include <algorithm>

#include "core/arena.h"
#include "core/check.h"
#include "core/parallel.h"
#include "cpu/dispatch.h"
#include "ops/_depthwise.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

// Pixels that fall on the same sets of the first cache push each other out of it.
int64_t padded(int64_t row) { return row % 128 == 0 ? row + 16 : row; }

// Cycles a pixel, roughly: tiles of 14 x 32, at least the latency of their sums.
int64_t cost(int64_t rows, int64_t lanes) {
  const int64_t tiles = ceil_div(rows, 14), height = ceil_div(rows, tiles);
  const int64_t whole = lanes / kPanel, rest = lanes % kPanel;
  const int64_t panels = whole * std::max<int64_t>(2 * height, 8) +
                         (rest ? std::max<int64_t>(height * ceil_div(rest, 16), 8) : 0);
  return tiles * panels;
}

// The run of a tap, and what is broadcast.
void choose_tiles(ConvGradientArgs& a) {
  const ConvShape& s = a.shape;
  const int64_t taps = s.kernel[0] * s.kernel[1];
  int64_t best = -1;
  for (bool rows : {false, true}) {
    if (rows && (s.kernel[2] == 1 || s.dilation[2] != 1)) continue;
    for (bool outputs : {false, true}) {
      const int64_t run = rows ? s.kernel[2] * a.channels : a.channels;
      const int64_t count = taps * (rows ? 1 : s.kernel[2]);
      const int64_t lanes = outputs ? a.outputs : run, broadcast = outputs ? run : a.outputs;
      const int64_t now = count * cost(broadcast, lanes);
      if (best >= 0 && now >= best) continue;
      best = now;
      a.run = run;
      a.taps[2] = rows ? 1 : s.kernel[2];
      a.outputs_are_lanes = outputs;
      a.lanes = lanes;
      a.row_count = broadcast;
    }
  }
  a.taps[0] = s.kernel[0];
  a.taps[1] = s.kernel[1];
  a.lane_row = padded(round_up(a.lanes, kPanel));
  a.x_pixel = a.taps[2] < s.kernel[2] ? a.channels : padded(a.channels);
  a.g_pixel = padded(a.outputs);
}

// Pixels of a step. Many where the sums do not stay in the second cache, or a step would take less
// time than threads need to meet; few enough for kStepBytes of strips.
constexpr int64_t kStepBytes = int64_t{6} << 20;

int64_t step_pixels(const ConvGradientArgs& a, int64_t size) {
  const int64_t sums = a.taps[0] * a.taps[1] * a.taps[2] * a.row_count * a.lane_row;
  const int64_t least = sums * size > (int64_t{512} << 10) ? 1024 : 512;
  const int64_t worth = std::min<int64_t>(8192, (int64_t{1} << 21) / std::max<int64_t>(1, sums));
  const int64_t bytes = (a.x_pixel * a.next[1] * a.next[2] * a.taps[0] + a.g_pixel) * size;
  return std::clamp<int64_t>(std::max(least, worth), 1, std::max<int64_t>(128, kStepBytes / bytes));
}

struct Steps {
  int64_t units, unit_blocks, row_blocks, col_blocks;
};

Steps divide(ConvGradientArgs& a, int64_t size) {
  const int64_t *out = a.g.size, pixels = step_pixels(a, size);
  Steps s{};
  s.col_blocks = ceil_div(out[2], std::min(out[2], pixels));
  a.cols = ceil_div(out[2], s.col_blocks);
  s.row_blocks = ceil_div(out[1], std::clamp<int64_t>(pixels / a.cols, 1, out[1]));
  a.rows = ceil_div(out[1], s.row_blocks);
  s.unit_blocks =
      ceil_div(a.g.batch, std::clamp<int64_t>(pixels / (a.rows * a.cols), 1, a.g.batch));
  s.units = ceil_div(a.g.batch, s.unit_blocks);
  return s;
}

int64_t positions(const ConvGradientArgs& a, int axis, int64_t count) {
  return (count - 1) * a.next[axis] + (a.shape.kernel[axis] - 1) * a.shape.dilation[axis] + 1;
}

// Whether a strip may be the image itself: whole vectors of f32 (f64) channels, and pixels that do
// not push each other out of the first cache. Zen 4, 2 images: 64 x 64 channels of 56 x 56 and
// 1 x 1 0.60 ms, copied 0.77; 3 x 3 kernels read every copy nine times: 256 x 256 of 14 x 14 6.5 ms,
// copied 5.7.
bool lies_ready(const ConvImage& t, int64_t channels, int64_t lanes, int64_t step, bool once) {
  return (t.dtype == DType::f32 || t.dtype == DType::f64) && (t.c == 1 || channels == 1) &&
         lanes % kPanel == 0 && (channels < kPanel || t.s[2] * step % (once ? 512 : 128) != 0);
}

void choose_copies(ConvGradientArgs& a) {
  const bool once = a.taps[0] * a.taps[1] * a.taps[2] == 1;
  a.g_lies = lies_ready(a.g, a.outputs, a.outputs_are_lanes ? a.outputs : 0, 1, once);
  a.x_lies =
      lies_ready(a.x, a.channels, a.outputs_are_lanes ? 0 : a.lanes, a.shape.stride[2], once) &&
      (a.run == a.channels || a.x.s[2] == a.channels);
  for (int i = 0; i < 3; ++i) {
    const ConvShape& s = a.shape;
    const int64_t last = (a.g.size[i] - 1) * s.stride[i] + (s.kernel[i] - 1) * s.dilation[i];
    a.x_lies = a.x_lies && s.before[i] == 0 && last < a.x.size[i];
  }
}

constexpr int64_t kCopiedPixels = 128;  // of g at once

void lay_out(ConvGradientArgs& a, const Steps& steps) {
  a.x_count[0] = a.shape.kernel[0];
  a.x_step[0] = a.shape.dilation[0];
  a.x_count[1] = positions(a, 1, a.rows);
  a.x_count[2] = positions(a, 2, a.cols);
  a.x_row = a.x_count[2] * a.x_pixel;
  a.x_plane = a.x_count[1] * a.x_row;
  a.x_unit = a.x_count[0] * a.x_plane;
  a.g_row = a.cols * a.g_pixel;
  a.g_unit = a.rows * a.g_row;
  const bool one_row = a.g.s[1] == a.g.size[2] * a.g.s[2] && a.cols == a.g.size[2];
  a.g_rows = one_row ? std::clamp<int64_t>(kCopiedPixels / a.cols, 1, a.rows) : 1;
  if (a.x_lies) {
    a.x_pixel = a.x.s[2] * a.x_step[2];
    a.x_row = a.x.s[1] * a.x_step[1];
    a.x_plane = a.x.s[0] * a.x_step[0];
    a.x_unit = a.x.n;
  }
  if (a.g_lies) {
    a.g_pixel = a.g.s[2];
    a.g_row = a.g.s[1];
    a.g_unit = a.g.n;
  }
  a.units = steps.units;
}

// Few tiles: pieces of the step are added up beside each other.
int64_t parts_of(const ConvGradientArgs& a) {
  const int64_t tiles = a.taps[0] * a.taps[1] * a.taps[2] * ceil_div(a.row_count, kGradientRows) *
                        ceil_div(a.lanes, kPanel);
  return tiles < 8 ? 4 : 1;
}

void* first_of_x(const ConvGradientArgs& a) {
  int64_t at = a.n * a.x.n + a.group * a.channels * a.x.c;
  for (int i = 0; i < 3; ++i) at += a.first[i] * a.shape.stride[i] * a.x.s[i];
  return static_cast<char*>(const_cast<void*>(a.x.data)) + at * size_of(a.x.dtype);
}
void* first_of_g(const ConvGradientArgs& a) {
  int64_t at = a.n * a.g.n + a.group * a.outputs * a.g.c;
  for (int i = 0; i < 3; ++i) at += a.first[i] * a.g.s[i];
  return static_cast<char*>(const_cast<void*>(a.g.data)) + at * size_of(a.g.dtype);
}

void gradient_of_group(ConvGradientArgs a) {
  const int64_t size = a.dtype == DType::f64 ? 8 : 4;
  for (int i = 1; i < 3; ++i) {
    const bool one = a.shape.kernel[i] == 1;
    a.x_step[i] = one ? a.shape.stride[i] : 1;
    a.next[i] = one ? 1 : a.shape.stride[i];
  }
  choose_tiles(a);
  choose_copies(a);
  const Steps steps = divide(a, size);
  lay_out(a, steps);
  a.parts = parts_of(a);
  // Tiles read whole panels: past the last pixel's channels too.
  const int64_t x_bytes =
      a.weight && !a.x_lies ? round_up((a.units * a.x_unit + 2 * kPanel) * size, 64) : 0;
  const int64_t g_bytes = a.g_lies ? 0 : round_up((a.units * a.g_unit + 2 * kPanel) * size, 64);
  const int64_t taps = a.taps[0] * a.taps[1] * a.taps[2];
  const int64_t sums_bytes = a.weight ? a.parts * taps * a.row_count * a.lane_row * size : 0;
  Scratch scratch(x_bytes + g_bytes + round_up(sums_bytes, 64) + a.outputs * 8);
  a.x_strip = scratch.as<char>();
  a.g_strip = scratch.as<char>() + x_bytes;
  a.sums = scratch.as<char>() + x_bytes + g_bytes;
  a.bias_sums =
      reinterpret_cast<double*>(scratch.as<char>() + x_bytes + g_bytes + round_up(sums_bytes, 64));
  const ConvGradientArgs whole = a;
  const int64_t *out = a.g.size, planes = out[0];
  const int64_t pixels = a.g.batch * planes * out[1] * out[2];
  const int64_t operations =
      pixels * a.outputs * a.channels * a.shape.kernel[0] * a.shape.kernel[1] * a.shape.kernel[2];
  const cpu::KernelTable& kernels = cpu::kernels();
  run_team(cpu::threads_for(operations / 8), [&](const Team& team) {
    ConvGradientArgs step = whole;
    for (int64_t d = 0; d < planes; ++d)
      for (int64_t r = 0; r < steps.row_blocks; ++r)
        for (int64_t c = 0; c < steps.col_blocks; ++c)
          for (int64_t u = 0; u < steps.unit_blocks; ++u) {
            step.first[0] = d;
            step.first[1] = r * whole.rows;
            step.first[2] = c * whole.cols;
            step.rows = std::min(whole.rows, out[1] - step.first[1]);
            step.cols = std::min(whole.cols, out[2] - step.first[2]);
            step.n = u * steps.units;
            step.units = std::min(steps.units, whole.g.batch - step.n);
            if (step.rows <= 0 || step.cols <= 0 || step.units <= 0) continue;
            step.x_count[1] = positions(step, 1, step.rows);
            step.x_count[2] = positions(step, 2, step.cols);
            if (step.x_lies) step.x_strip = first_of_x(step);
            if (step.g_lies) step.g_strip = first_of_g(step);
            const int64_t loads = gradient_row_items(step), tiles = gradient_tile_items(step);
            kernels.conv_gradient_rows(step, team.begin(loads), team.end(loads));
            team.barrier();
            kernels.conv_weight_gradient(step, team.begin(tiles), team.end(tiles));
            team.barrier();
            step.add = true;
          }
    kernels.conv_gradient_store(whole, team.begin(whole.outputs), team.end(whole.outputs));
  });
}

// A kernel of one element meets pixels one by one: dimensions that follow each other are one.
void join_pixels(ConvGradientArgs& a) {
  for (int i = 0; i < 3; ++i)
    if (a.shape.kernel[i] != 1 || a.shape.stride[i] != 1 || a.shape.before[i] != 0 ||
        a.x.size[i] != a.g.size[i])
      return;
  auto join = [](ConvImage& t, int64_t& outer) {
    t.size[2] *= outer;
    outer = 1;
  };
  for (int i = 1; i >= 0; --i) {
    for (const ConvImage* t : {&a.x, &a.g})
      if (t->size[i] != 1 && t->s[i] != t->size[2] * t->s[2]) return;
    for (ConvImage* t : {&a.x, &a.g}) join(*t, t->size[i]);
  }
  for (const ConvImage* t : {&a.x, &a.g})
    if (t->batch != 1 && t->n != t->size[2] * t->s[2]) return;
  for (ConvImage* t : {&a.x, &a.g}) join(*t, t->batch);
}

void fill_zero(const TensorView& t) {
  const int64_t size = size_of(t.dtype);
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t rest = i, at = 0;
    for (int d = t.ndim - 1; d >= 0; --d) {
      at += rest % t.shape[d] * t.strides[d];
      rest /= t.shape[d];
    }
    std::fill_n(t.as<char>() + at * size, size, char{0});
  }
}

}  // namespace

int64_t gradient_row_items(const ConvGradientArgs& a) {
  const int64_t x_rows = a.weight && !a.x_lies ? a.x_count[0] * a.x_count[1] : 0;
  return a.units * (x_rows + (a.g_lies ? 0 : ceil_div(a.rows, a.g_rows)));
}

int64_t gradient_tile_items(const ConvGradientArgs& a) {
  int64_t items = a.bias ? ceil_div(a.outputs, kPanel) : 0;
  if (a.weight)
    items += a.parts * a.taps[0] * a.taps[1] * a.taps[2] * ceil_div(a.row_count, kGradientRows) *
             ceil_div(a.lanes, kPanel);
  return items;
}

void conv_weight_gradient(const TensorView* dw, const TensorView* db, const TensorView& g,
                          const TensorView& x, const ConvShape& given) {
  ConvShape shape = given;
  if (g.numel() == 0) {
    if (dw) fill_zero(*dw);
    if (db) fill_zero(*db);
    return;
  }
  if (dw && is_depthwise(x, *dw, shape)) {
    depthwise_weight_gradient(*dw, g, x, shape);
    dw = nullptr;
  }
  if (!dw)  // the bias's alone: sums of channels
    shape = ConvShape{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, 1, Border::zeros};
  ConvGradientArgs a{};
  a.x = image_of(dw ? x : g);
  a.g = image_of(g);
  a.shape = shape;
  a.channels = a.x.channels / shape.groups;
  a.outputs = g.size(1) / shape.groups;
  a.weight = dw && dw->numel() > 0;
  a.bias = db != nullptr;
  a.dtype = x.dtype;
  if (!a.weight && !a.bias) return;
  join_pixels(a);
  const int64_t size = size_of(x.dtype);
  for (a.group = 0; a.group < shape.groups; ++a.group) {
    const int64_t first = a.group * a.outputs;
    if (a.weight) {
      a.dw = dw->as<char>() + first * dw->stride(0) * size;
      a.dw_o = dw->stride(0);
      a.dw_c = dw->stride(1);
      std::copy_n(dw->strides + 2, 3, a.dw_k);
    }
    if (a.bias) {
      a.db = db->as<char>() + first * db->stride(0) * size;
      a.db_o = db->stride(0);
    }
    gradient_of_group(a);
  }
}

}  // namespace honed
