// The direct convolution: tiles of pixels of a strip times a panel, one row of the kernel after the
// other, then the epilogue while the sums are in the first two caches.
#include "ops/conv.h"

#include "cpu/kernels/conv_strip.h"
#include "cpu/kernels/linear_float.h"
#include "cpu/kernels/product_finish.h"

HONED_BEGIN_LEVEL

namespace {

static_assert(kConvChunk == kMaxDepth);

// Inputs of a pixel's window that lie together in a strip, and meet weights that do.
struct Run {
  int64_t at, inputs;
};
// Runs shorter than this are taken apart: every input has its place.
constexpr int64_t kShortest = 64;

// The windows' inputs in the order of the weight's, as runs of at most kMaxDepth or, where these
// would be short, one by one.
struct Window {
  int64_t count;
  const Run* runs;
  const int32_t* at;  // nullptr: runs

  // Where a chunk that begins at r ends: with as many inputs as partial sums may have.
  int64_t end_of_chunk(int64_t r, int64_t* inputs) const {
    if (at) {
      const int64_t left = count - r;
      *inputs = left < kMaxDepth ? left : kMaxDepth;
      return r + *inputs;
    }
    *inputs = runs[r].inputs;
    int64_t next = r + 1;
    while (next < count && *inputs + runs[next].inputs <= kMaxDepth) *inputs += runs[next++].inputs;
    return next;
  }
};

Window find_window(const ConvArgs& a, const ConvPart& part, int64_t row, int64_t plane,
                   void* memory) {
  const ConvShape& c = a.shape;
  const bool joined = a.pixel == a.channels && c.dilation[2] == 1;
  const int64_t together = joined ? part.kernel[2] * a.channels : a.channels;
  const bool apart = together < kShortest;
  Run* runs = static_cast<Run*>(memory);
  int32_t* places = static_cast<int32_t*>(memory);
  int64_t count = 0;
  auto add = [&](int64_t at) {
    if (apart)
      for (int64_t i = 0; i < together; ++i) places[count++] = int32_t(at + i);
    else
      for (int64_t i = 0; i < together; i += kMaxDepth)
        runs[count++] = {at + i, together - i < kMaxDepth ? together - i : kMaxDepth};
  };
  const int64_t first = part.first[0] * plane + part.first[1] * row + part.first[2] * a.pixel;
  for (int64_t d = 0; d < part.kernel[0]; ++d)
    for (int64_t h = 0; h < part.kernel[1]; ++h) {
      const int64_t at = first + d * c.dilation[0] * plane + h * c.dilation[1] * row;
      for (int64_t w = 0; w < (joined ? 1 : part.kernel[2]); ++w)
        add(at + w * c.dilation[2] * a.pixel);
    }
  return {count, runs, apart ? places : nullptr};
}

// Inputs [r, next) of MR pixels' windows times channels of a panel; to `straight` from row and
// channel on, or to out.
template <int MR, class S, int kWide>
[[gnu::noinline]] void window_tile(const S* w, const Window& window, int64_t r, int64_t next,
                                   const S* x, int64_t x_row, S* out, const Straight* straight,
                                   int64_t row, int channel) {
  TileSums<MR, S, kWide> sums;
  if (window.at) {
    sums.add_at(w, window.at + r, next - r, x, x_row);
  } else {
    for (int64_t i = r; i < next; ++i) {
      sums.add(w, kPanel, window.runs[i].inputs, x + window.runs[i].at, x_row, 1);
      w += window.runs[i].inputs * kPanel;
    }
  }
  if (straight)
    sums.finish(*straight, row, channel, r > 0, out);
  else
    sums.give(r > 0, out);
}

struct Extent {
  int64_t first, count;
};
// Part i of `parts` even ones of [0, size).
HONED_INLINE Extent part(int64_t size, int64_t parts, int64_t i) {
  return {size * i / parts, size * (i + 1) / parts - size * i / parts};
}

template <class S>
class Direct {
 public:
  explicit Direct(const ConvArgs& a) : a_(a) {
    for (int i = 0; i < 3; ++i) stride_[i] = a.step[i] == 1 ? a.shape.stride[i] : 1;
    row_ = a.pixel * conv_strip_extent(a, 2, a.cols);
    plane_ = row_ * conv_strip_extent(a, 1, a.rows);
    wide_ = reinterpret_cast<S*>(static_cast<char*>(a.scratch) + conv_window_bytes(a));
    strip_ = wide_ + (a.w.kind == WeightKind::int8 ? kMaxDepth * kPanel : 0);
    blocks_[0] = a.size[0];
    blocks_[1] = (a.size[1] + a.rows - 1) / a.rows;
    blocks_[2] = (a.size[2] + a.cols - 1) / a.cols;
  }

  void run(int64_t begin, int64_t end) {
    const int64_t groups = a_.shape.groups, panels = a_.w.panels;
    int64_t loaded = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t panel = item % panels, strip = item / panels / a_.part_count;
      const ConvPart* part = a_.parts + item / panels % a_.part_count;
      if (part != part_) window_ = find_window(a_, *part, row_, plane_, a_.scratch);
      part_ = part;
      if (strip != loaded) load(strip / groups, strip % groups);
      loaded = strip;
      multiply(strip % groups, panel);
    }
  }

 private:
  void load(int64_t block, int64_t group) {
    const int64_t w = block % blocks_[2], h = block / blocks_[2] % blocks_[1];
    const int64_t d = block / (blocks_[2] * blocks_[1]) % blocks_[0];
    image_ = block / (blocks_[2] * blocks_[1] * blocks_[0]);
    extent_[0] = {d, 1};
    extent_[1] = part(a_.size[1], blocks_[1], h);
    extent_[2] = part(a_.size[2], blocks_[2], w);
    Strip strip{image_, group * a_.channels, a_.channels, {}, {}, {}};
    for (int i = 0; i < 3; ++i) {
      strip.first[i] = extent_[i].first * a_.shape.stride[i] - a_.shape.before[i];
      strip.count[i] = conv_strip_extent(a_, i, extent_[i].count);
      strip.step[i] = a_.step[i];
    }
    load_strip(a_.x, a_.shape.border, strip, strip_, a_.pixel, row_, plane_);
  }

  void multiply(int64_t group, int64_t panel) {
    alignas(64) S out[kBlockRows * kPanel];
    const int64_t first = panel * kPanel, left = a_.w.n - first;
    const int channels = int(left < kPanel ? left : kPanel);
    const int rows = extent_of_part(1), cols = extent_of_part(2);
    if (extent_of_part(0) <= 0 || rows <= 0 || cols <= 0) return;
    const int64_t index = group * a_.w.panels + panel;
    const S* bias = static_cast<const S*>(a_.to.bias);
    if (bias) bias += index * kPanel;
    const uint8_t* w = part_->w + index * part_->panel_bytes;
    bool straight = false;
    for (int64_t r = 0; r < window_.count;) {
      int64_t inputs;
      const int64_t next = window_.end_of_chunk(r, &inputs);
      const S* chunk = weights(w, inputs);
      for (int h = 0; h < rows; ++h) {
        Straight to;
        if constexpr (sizeof(S) == 4)
          straight = next == window_.count && !a_.w.scales &&
                     goes_straight(row_of(group, h), 0, first, channels, bias, &to);
        for (int c = 0; c < channels; c += 2 * Simd<S>::lanes) {
          S* sums = out + h * cols * kPanel + c;
          if (channels - c <= Simd<S>::lanes)
            tiles<1>(chunk + c, r, next, h, cols, sums, straight ? &to : nullptr, c);
          else
            tiles<2>(chunk + c, r, next, h, cols, sums, straight ? &to : nullptr, c);
        }
      }
      w += inputs * kPanel * (a_.w.kind == WeightKind::int8 ? 1 : int64_t(sizeof(S)));
      r = next;
    }
    if (straight) return;
    if (window_.count == 0)
      for (int i = 0; i < rows * cols * kPanel; ++i) out[i] = S(0);
    scale_and_bias(a_.to, 0, rows * cols, a_.w.scales ? a_.w.scales + index * kPanel : nullptr,
                   bias, out);
    const bool dense = a_.y_s[1] == cols * a_.y_s[2] &&
                       (!a_.to.residual || a_.residual_s[1] == cols * a_.residual_s[2]);
    const int together = dense ? rows : 1;
    for (int h = 0; h < rows; h += together)
      finish_any<S>(row_of(group, h), 0, together * cols, first, channels, out + h * cols * kPanel,
                    nullptr);
  }

  // Of the loaded strip's outputs those that the part has.
  int extent_of_part(int axis) const {
    const int64_t left = part_->size[axis] - extent_[axis].first;
    return int(left < extent_[axis].count ? left : extent_[axis].count);
  }

  // A chunk of a panel as it is multiplied.
  const S* weights(const uint8_t* w, int64_t inputs) {
    if (a_.w.kind != WeightKind::int8) return reinterpret_cast<const S*>(w);
    const int8_t* q = reinterpret_cast<const int8_t*>(w);
    for (int64_t i = 0; i < inputs * kPanel; ++i) wide_[i] = S(q[i]);
    return wide_;
  }

  // Inputs [r, next) of the windows of output row h.
  template <int kWide>
  HONED_INLINE void tiles(const S* w, int64_t r, int64_t next, int h, int cols, S* out,
                          const Straight* straight, int channel) {
    const int64_t x_row = stride_[2] * a_.pixel;
    const S* x = strip_ + h * stride_[1] * row_;
    for_tiles<kRows>(cols, [&](int at, auto tile) {
      window_tile<decltype(tile)::count, S, kWide>(w, window_, r, next, x + at * x_row, x_row,
                                                   out + at * kPanel, straight, at, channel);
    });
  }

  // Where output row h of the strip and the group's first channel go.
  Destination row_of(int64_t group, int h) const {
    Destination to = a_.to;
    const int64_t size = size_of(to.dtype);
    auto at = [&](int64_t part, const int64_t (&s)[3], int64_t n, int64_t channel) {
      return (part + image_ * n + group * a_.w.n * channel + extent_[0].first * s[0] +
              (extent_[1].first + h) * s[1] + extent_[2].first * s[2]) *
             size;
    };
    to.y = static_cast<char*>(to.y) + at(part_->y, a_.y_s, a_.y_n, to.y_col);
    if (to.residual)
      to.residual = static_cast<const char*>(to.residual) +
                    at(part_->residual, a_.residual_s, a_.residual_n, to.residual_col);
    return to;
  }
  const ConvArgs& a_;
  const ConvPart* part_ = nullptr;
  int64_t stride_[3], row_, plane_, blocks_[3], image_ = 0;
  Extent extent_[3];
  Window window_;
  S *wide_, *strip_;
};

}  // namespace

void conv(const ConvArgs& args, int64_t begin, int64_t end) {
  if (args.w.kind == WeightKind::f64)
    Direct<double>(args).run(begin, end);
  else
    Direct<float>(args).run(begin, end);
}

HONED_END_LEVEL
