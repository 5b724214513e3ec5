// conv_transpose: one convolution for every residue of the output's positions modulo the stride.
#include "ops/conv_transpose.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "core/arena.h"
#include "core/check.h"
#include "core/parallel.h"
#include "cpu/dispatch.h"
#include "ops/_conv_head.h"
#include "ops/_conv_weight.h"
#include "ops/_depthwise.h"
#include "ops/matmul.h"

namespace honed {

namespace {

// The part of an axis whose positions are r modulo the stride.
struct Residue {
  int64_t first, count;         // of the output: first, first + stride, ...
  int64_t tap, taps, tap_step;  // of the kernel, from the last to the first
  int64_t before, dilation;
};

Residue residue_of(const ConvShape& s, int axis, int64_t size, int64_t r) {
  const int64_t stride = s.stride[axis], dilation = s.dilation[axis], kernel = s.kernel[axis];
  const int64_t common = std::gcd(stride, dilation), step = stride / common;
  Residue part{r, (size - r + stride - 1) / stride, 0, 0, step, 0, dilation / common};
  for (int64_t k = 0; k < std::min(kernel, step); ++k) {
    const int64_t whole = r + s.before[axis] - k * dilation;
    if (whole % stride) continue;
    part.taps = (kernel - k + step - 1) / step;
    part.tap = k + (part.taps - 1) * step;
    part.before = (part.taps - 1) * part.dilation - whole / stride;
    break;
  }
  return part;
}

// w with outputs first: (O, C, KD, KH, KW). Of several groups a copy in `made`, unless it is a view.
TensorView turned(const TensorView& w, int64_t groups, Scratch& made) {
  TensorView t = w;
  const int64_t channels = w.size(0) / groups, outputs = w.size(1);
  t.shape[0] = groups * outputs;
  t.shape[1] = channels;
  t.strides[0] = w.stride(1);
  t.strides[1] = w.stride(0);
  if (groups == 1) return t;
  if (outputs == 1) {
    t.strides[0] = channels * w.stride(0);
    return t;
  }
  const int64_t size = size_of(w.dtype);
  const int64_t taps = w.size(2) * w.size(3) * w.size(4);
  t.data = made.as<char>();
  int64_t step = 1;
  for (int d = 4; d >= 0; --d) {
    t.strides[d] = step;
    step *= t.shape[d];
  }
  parallel_for(t.shape[0], cpu::grain_for(channels * taps), [&](int64_t begin, int64_t end) {
    char* to = t.as<char>() + begin * channels * taps * size;
    for (int64_t o = begin; o < end; ++o)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t d = 0; d < w.size(2); ++d)
          for (int64_t h = 0; h < w.size(3); ++h)
            for (int64_t k = 0; k < w.size(4); ++k, to += size)
              std::memcpy(to,
                          w.as<char>() + ((o / outputs * channels + c) * w.stride(0) +
                                          o % outputs * w.stride(1) + d * w.stride(2) +
                                          h * w.stride(3) + k * w.stride(4)) *
                                             size,
                          size_t(size));
  });
  return t;
}

TensorView part_of(const TensorView& t, const Residue* parts, const ConvShape& shape) {
  TensorView part = t;
  int64_t at = 0;
  for (int i = 0; i < 3; ++i) {
    at += parts[i].first * t.strides[2 + i];
    part.shape[2 + i] = parts[i].count;
    part.strides[2 + i] = t.strides[2 + i] * shape.stride[i];
  }
  part.data = t.as<char>() + at * size_of(t.dtype);
  return part;
}

// Of w, outputs first, the elements that meet a residue.
TensorView taps_of(const TensorView& w, const Residue* of) {
  TensorView taps = w;
  int64_t at = 0;
  for (int i = 0; i < 3; ++i) {
    at += of[i].tap * w.strides[2 + i];
    taps.shape[2 + i] = of[i].taps;
    taps.strides[2 + i] = -of[i].tap_step * w.strides[2 + i];
  }
  taps.data = w.as<char>() + at * size_of(w.dtype);
  return taps;
}

// visit(the residues of the three axes), the last axis's fastest.
template <class Visit>
void for_residues(const TensorView& y, const ConvShape& shape, Visit visit) {
  int64_t count[3];
  for (int i = 0; i < 3; ++i) count[i] = std::min(shape.stride[i], y.size(2 + i));
  for (int64_t d = 0; d < count[0]; ++d)
    for (int64_t h = 0; h < count[1]; ++h)
      for (int64_t w = 0; w < count[2]; ++w) {
        const Residue of[3] = {residue_of(shape, 0, y.size(2), d),
                               residue_of(shape, 1, y.size(3), h),
                               residue_of(shape, 2, y.size(4), w)};
        visit(of);
      }
}

// Elements that no input reaches: activation(bias + residual), products without inputs.
void without_inputs(const TensorView& y, const ConvEpilogue& e) {
  auto rows = [](const TensorView& t, int64_t n, int64_t d, int64_t h) {
    TensorView row = t;
    row.ndim = 2;
    row.data =
        t.as<char>() + (n * t.strides[0] + d * t.strides[2] + h * t.strides[3]) * size_of(t.dtype);
    row.shape[0] = t.shape[4];
    row.strides[0] = t.strides[4];
    row.shape[1] = t.shape[1];
    row.strides[1] = t.strides[1];
    return row;
  };
  for (int64_t n = 0; n < y.size(0); ++n)
    for (int64_t d = 0; d < y.size(2); ++d)
      for (int64_t h = 0; h < y.size(3); ++h) {
        const TensorView out = rows(y, n, d, h);
        TensorView left = out, right = out, residual;
        left.shape[1] = 0;
        right.shape[0] = 0;
        right.shape[1] = out.shape[1];
        Epilogue epilogue;
        epilogue.bias = e.bias;
        epilogue.activation = e.activation;
        if (e.residual) {
          residual = rows(*e.residual, n, d, h);
          epilogue.residual = &residual;
        }
        matmul(out, left, right, epilogue);
      }
}

// True where all of t's memory was set to zero: it has no gaps.
bool fill_zero(const TensorView& t) {
  int order[kMaxDims];
  for (int i = 0; i < t.ndim; ++i) order[i] = i;
  std::stable_sort(order, order + t.ndim,
                   [&](int a, int b) { return t.strides[a] > t.strides[b]; });
  int64_t expected = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    if (t.shape[order[i]] != 1 && t.strides[order[i]] != expected) return false;
    expected *= t.shape[order[i]];
  }
  const int64_t bytes = expected * size_of(t.dtype);
  parallel_for(bytes, int64_t{1} << 20, [&](int64_t begin, int64_t end) {
    std::memset(t.as<char>() + begin, 0, size_t(end - begin));
  });
  return true;
}

int64_t image_bytes(const TensorView& y) { return y.numel() / y.size(0) * size_of(y.dtype); }

// Planes of y that residues would fill element by element: images that are made with their channels
// side by side and turned afterwards at a time; 0: none. Zen 4, 256 to 128 channels of 32 x 32, 2 x 2
// of stride 2: 5.7 ms in place, 4.1 turned.
int64_t images_turned(const TensorView& y, const ConvShape& shape) {
  constexpr int64_t kBytes = int64_t{8} << 20, kMostBytes = int64_t{32} << 20;
  const bool planes = y.stride(4) == 1 && y.stride(3) == y.size(4) &&
                      (y.size(2) == 1 || y.stride(2) == y.size(3) * y.size(4)) && y.stride(1) != 1;
  if (shape.stride[2] == 1 || !planes || y.size(1) < 16 || image_bytes(y) > kMostBytes) return 0;
  return std::max<int64_t>(1, kBytes / image_bytes(y));
}

TensorView images_of(const TensorView& t, int64_t first, int64_t count) {
  TensorView part = t;
  part.data = t.as<char>() + first * t.stride(0) * size_of(t.dtype);
  part.shape[0] = count;
  return part;
}

// Like y, in `block`, channels side by side.
TensorView turned_in(const Scratch& block, const TensorView& y) {
  TensorView t = y;
  t.data = block.as<void>();
  int64_t step = 1;
  for (int d : {1, 4, 3, 2, 0}) {
    t.strides[d] = step;
    step *= t.shape[d];
  }
  return t;
}

void turn_back(const TensorView& from, const TensorView& y) {
  const int64_t pixels = y.size(2) * y.size(3) * y.size(4), channels = y.size(1);
  const int64_t blocks = (channels + kTurned - 1) / kTurned;
  const bool narrow = size_of(y.dtype) == 2;  // bits are copied
  parallel_for(y.size(0) * blocks, cpu::grain_for(kTurned * pixels / 4),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const TensorView to = images_of(y, i / blocks, 1);
                   const MatmulArrangeArgs args{images_of(from, i / blocks, 1).data,
                                                y.dtype,
                                                channels,
                                                pixels,
                                                1,
                                                channels,
                                                to.data,
                                                y.stride(1),
                                                narrow};
                   cpu::kernels().matmul_rows(args, i % blocks, i % blocks + 1);
                 }
               });
}

// All residues as parts of one convolution: its strips are loaded once, and the weight is packed once
// for many images.
class Parts {
 public:
  // w: outputs first. y: the extents count.
  Parts(const TensorView& y, const TensorView& w, const ConvShape& shape, const TensorView* bias)
      : shape_(shape), given_(shape) {
    int64_t last[3] = {}, bytes = 0;
    for (int i = 0; i < 3; ++i) {
      shape_.stride[i] = shape_.dilation[i] = 1;
      shape_.before[i] = std::numeric_limits<int64_t>::min();
      for (int64_t r = 0; r < std::min(shape.stride[i], y.size(2 + i)); ++r)
        shape_.before[i] =
            std::max(shape_.before[i], residue_of(shape, i, y.size(2 + i), r).before);
    }
    const DType wide = w.dtype == DType::f64 ? DType::f64 : DType::f32;
    w_ = conv_panels(wide == DType::f64 ? WeightKind::f64 : WeightKind::f32,
                     w.size(0) / shape.groups, conv_inputs(w));
    for_residues(y, shape, [&](const Residue* of) {
      ConvPart part{};
      int64_t inputs = w.size(1);
      for (int i = 0; i < 3; ++i) {
        part.kernel[i] = of[i].taps;
        part.first[i] = shape_.before[i] - of[i].before;
        part.size[i] = of[i].count;
        last[i] = std::max(last[i], part.first[i] + of[i].taps);
        inputs *= of[i].taps;
      }
      part.panel_bytes = conv_panels(w_.kind, w_.n, inputs).panel_bytes;
      bytes += shape.groups * w_.panels * part.panel_bytes;
      parts_.push_back(part);
    });
    std::copy_n(last, 3, shape_.kernel);
    packed_.emplace(bytes);
    uint8_t* to = packed_->as<uint8_t>();
    size_t at = 0;
    for_residues(y, shape, [&](const Residue* of) {
      ConvPart& part = parts_[at++];
      part.w = to;
      pack_conv_weight(taps_of(w, of), shape.groups, to);
      to += shape.groups * w_.panels * part.panel_bytes;
    });
    if (!bias) return;
    bias_.emplace(padded_bias_bytes(w.size(0), shape.groups, w.dtype));
    pad_bias(*bias, shape.groups, bias_->as<void>());
  }

  void run(const TensorView& y, const TensorView& x, const ConvEpilogue& epilogue) {
    ConvEpilogue e = epilogue;
    TensorView out, residual;
    size_t at = 0;
    for_residues(y, given_, [&](const Residue* of) {
      const TensorView own = part_of(y, of, given_);
      if (at == 0) out = own;
      ConvPart& part = parts_[at++];
      part.y = (own.as<char>() - out.as<char>()) / size_of(y.dtype);
      if (!epilogue.residual) return;
      const TensorView add = part_of(*epilogue.residual, of, given_);
      if (at == 1) residual = add;
      part.residual = (add.as<char>() - residual.as<char>()) / size_of(y.dtype);
    });
    if (e.residual) e.residual = &residual;
    conv_parts(out, x, w_, shape_, parts_.data(), int64_t(parts_.size()), e,
               epilogue.bias ? bias_->as<void>() : nullptr);
  }

 private:
  ConvShape shape_, given_;
  PackedView w_;
  std::vector<ConvPart> parts_;
  std::optional<Scratch> packed_, bias_;
};

bool are_parts(const ConvShape& s, const TensorView& y) {
  for (int i = 0; i < 3; ++i)
    for (int64_t r = 0; r < std::min(s.stride[i], y.size(2 + i)); ++r) {
      const Residue of = residue_of(s, i, y.size(2 + i), r);
      if (of.taps == 0 || of.dilation != 1) return false;
    }
  return s.stride[0] * s.stride[1] * s.stride[2] > 1;
}

bool reaches_all(const ConvShape& s, const TensorView& y) {
  for (int i = 0; i < 3; ++i)
    for (int64_t r = 0; r < std::min(s.stride[i], y.size(2 + i)); ++r)
      if (residue_of(s, i, y.size(2 + i), r).taps == 0) return false;
  return true;
}

// A convolution for every residue.
void one_by_one(const TensorView& y, const TensorView& x, const TensorView& w,
                const ConvShape& shape, const ConvEpilogue& epilogue, bool exact) {
  const bool zeros =  // every activation of 0 is 0
      !epilogue.bias && !epilogue.residual && !reaches_all(shape, y) && fill_zero(y);
  for_residues(y, shape, [&](const Residue* of) {
    ConvShape s = shape;
    int64_t count = 1;
    for (int i = 0; i < 3; ++i) {
      s.stride[i] = 1;
      s.kernel[i] = of[i].taps;
      s.dilation[i] = of[i].dilation;
      s.before[i] = of[i].before;
      count *= of[i].taps;
    }
    const TensorView out = part_of(y, of, shape);
    ConvEpilogue e = epilogue;
    TensorView residual;
    if (e.residual) {
      residual = part_of(*e.residual, of, shape);
      e.residual = &residual;
    }
    if (count > 0)
      conv(out, x, taps_of(w, of), s, e, exact);
    else if (!zeros)
      without_inputs(out, e);
  });
}

// run(y, x, epilogue), of some images at a time where their channels are turned afterwards.
template <class Run>
void in_images(const TensorView& y, const TensorView& x, const ConvShape& shape,
               const ConvEpilogue& epilogue, Run run) {
  const int64_t images = images_turned(y, shape);
  if (images == 0) return run(y, x, epilogue);
  Scratch block(std::min(images, y.size(0)) * image_bytes(y));
  for (int64_t n = 0; n < y.size(0); n += images) {
    const int64_t count = std::min(images, y.size(0) - n);
    const TensorView part = images_of(y, n, count), side_by_side = turned_in(block, part);
    ConvEpilogue e = epilogue;
    TensorView residual;
    if (e.residual) {
      residual = images_of(*e.residual, n, count);
      e.residual = &residual;
    }
    run(side_by_side, images_of(x, n, count), e);
    turn_back(side_by_side, part);
  }
}

}  // namespace

void conv_transpose(const TensorView& y, const TensorView& x, const TensorView& w,
                    const ConvShape& shape, const ConvEpilogue& epilogue, bool exact) {
  if (y.numel() == 0) return;
  const bool plain = !epilogue.bias && !epilogue.residual;
  if (plain && epilogue.activation == Activation::none && shape.groups > 1 &&
      is_depthwise(y, w, shape)) {
    Scratch packed(depthwise_weight_bytes(w));
    depthwise_weight(w, packed.as<void>());
    return depthwise_input_gradient(y, x, packed.as<void>(), shape);
  }
  if (conv_head(y, x, w, shape, epilogue)) return;
  const bool copied = shape.groups > 1 && w.size(1) > 1;
  Scratch made(copied ? w.numel() * size_of(w.dtype) : 0);
  const TensorView weight = turned(w, shape.groups, made);
  if (are_parts(shape, y)) {
    Parts parts(y, weight, shape, epilogue.bias);
    return in_images(y, x, shape, epilogue, [&](const auto&... of) { parts.run(of...); });
  }
  in_images(y, x, shape, epilogue,
            [&](const TensorView& part, const TensorView& of, const ConvEpilogue& e) {
              one_by_one(part, of, weight, shape, e, exact);
            });
}

}  // namespace honed
