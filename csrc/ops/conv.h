// y[n,o,p] = activation(sum_{c,k} w[o,c,k] x[n, g C + c, p stride + k dilation - before] + b[o]
//                       + residual[n,o,p]),      g = o / (O / groups)
//
// x: (N, groups C, D, H, W)  y: (N, O, D', H', W')  w: (O, C, KD, KH, KW), any strides; of fewer
// dimensions, the first are 1. Sums are f32, f64 for f64. Outside of x are zeros, or x again: its
// mirror image at the first and the last element (reflect), the nearest element (replicate), the
// other end (circular).
//
// The ways, chosen by what they were measured to cost:
//   product    1 x 1: the product of ops/matmul.h, pixels as rows
//   direct     strips of the input are copied with their border, channels side by side (S), so that
//              a row of the kernel meets a row of KW C inputs that lie together; tiles of pixels
//              times panels of 32 channels, as in linear
//   winograd   3 x 3 of stride 1: ops/_winograd.h
//   depthwise  one input channel an output channel: ops/_depthwise.h
//
// Packed weights: panels of 32 output channels of a group as in ops/linear.h, inputs ordered
// [KD][KH][KW][C]; the groups' panels follow each other.
#pragma once
#include <memory>
#include <mutex>

#include "ops/linear.h"

namespace honed {

enum class Border : uint8_t { zeros, reflect, replicate, circular };

struct ConvShape {
  int64_t kernel[3], stride[3], dilation[3];
  int64_t before[3];  // elements of border before the first input; negative: inputs passed over
  int64_t groups;
  Border border;
};

struct ConvEpilogue {
  const TensorView* bias = nullptr;      // (O,), of x's type
  const TensorView* residual = nullptr;  // like y; added before the activation
  Activation activation = Activation::none;
};

struct ConvWeightSizes {
  int64_t outputs, channels;  // of all groups; of one
  int64_t kernel[3], groups;
  DType dtype;  // as multiplied: f32 or f64
};

// What kernels see of an image; strides in elements.
struct ConvImage {
  const void* data;
  DType dtype;
  int64_t batch, channels, size[3];
  int64_t n, c, s[3];
};
ConvImage image_of(const TensorView& t);

// A box of `count` positions an axis, `step` apart from `first` on, in the coordinates of the
// image; channels [channel, channel + channels).
struct Strip {
  int64_t n, channel, channels;
  int64_t first[3], count[3], step[3];
};

// One of several convolutions over the same strips; their outputs lie between each other's.
struct ConvPart {
  int64_t kernel[3], first[3];  // in positions of the strip: where the kernel's first element is
  int64_t size[3];              // of its y, at most that of ConvArgs
  int64_t y, residual;          // elements from ConvArgs' y
  const uint8_t* w;             // panels of group 0
  int64_t panel_bytes;
};

// Items: a strip of output pixels times a part times a panel of a group; panels are the fastest index.
struct ConvArgs {
  ConvImage x;
  ConvShape shape;   // its kernel covers those of all parts
  int64_t channels;  // of a group
  PackedView w;      // of group 0: n outputs of a group; data and k are the parts'
  const ConvPart* parts;
  int64_t part_count;
  int64_t size[3];  // of y
  // Of y and the residual; to.y_row and to.residual_row are not used, to.bias has whole panels.
  Destination to;
  int64_t y_n, y_s[3], residual_n, residual_s[3];
  int64_t rows, cols;  // output rows and columns of a strip, at most; rows cols <= kBlockRows
  int64_t step[3];     // of a strip: 1, or the stride where a kernel of 1 passes over the rest
  int64_t pixel;       // elements from pixel to pixel of a strip: channels, or padded
  void* scratch;       // conv_scratch_bytes, this thread's
};
inline constexpr int64_t kConvChunk = 384;  // inputs whose weights the kernel widens at a time
// Positions of a strip along an axis for `count` outputs.
int64_t conv_strip_extent(const ConvArgs& args, int axis, int64_t count);
int64_t conv_window_bytes(const ConvArgs& args);  // where a window's inputs lie
int64_t conv_scratch_bytes(const ConvArgs& args);

// w to panels; items are panels of all groups.
struct ConvWeightArgs {
  const void* w;
  DType dtype;
  int64_t outputs, channels, kernel[3];  // of a group
  int64_t o, c, k[3];                    // strides
  int64_t panels;                        // of a group
  void* to;                              // f32 (f64)
};

// A weight made ready once for many calls, with its bias. A form that only some ways need is made
// when the first of them runs.
class ConvWeight {
 public:
  // w: (O, C, KD, KH, KW); bias: (O,) or nullptr. int8: w is rounded, round(w / s) with s = max |w| /
  // 127 an output channel.
  ConvWeight(const TensorView& w, const TensorView* bias, int64_t groups, bool int8);

  const ConvWeightSizes& sizes() const { return sizes_; }
  bool int8() const { return panels_.kind == WeightKind::int8; }
  int64_t bytes() const;

  const PackedView& panels() const { return panels_; }  // of group 0, the others follow
  const float* winograd(int tile) const;                // outputs a side of a tile: 2 or 4
  const void* depthwise() const { return depthwise_.get(); }
  const void* padded_bias() const { return padded_bias_.get(); }            // as Destination has it
  const TensorView* bias() const { return bias_ ? &bias_view_ : nullptr; }  // f32 (f64)

 private:
  void round(const TensorView& w);

  ConvWeightSizes sizes_;
  PackedView panels_{};
  TensorView bias_view_;
  std::shared_ptr<uint8_t[]> data_, scales_, depthwise_, padded_bias_, bias_;
  mutable std::shared_ptr<uint8_t[]> winograd_[2];
  mutable std::mutex making_;
};

// Extents of y along an axis.
int64_t conv_extent(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
                    int64_t after);

// Several convolutions as one: y, the residual and the epilogue are those of the first part, whose y
// has the largest sizes. w: n, kind and panels of a group; epilogue.bias as Destination has it.
void conv_parts(const TensorView& y, const TensorView& x, const PackedView& w,
                const ConvShape& shape, const ConvPart* parts, int64_t count,
                const ConvEpilogue& epilogue, const void* bias);

// exact: no way that adds inputs to each other before it multiplies (Winograd).
void conv(const TensorView& y, const TensorView& x, const TensorView& w, const ConvShape& shape,
          const ConvEpilogue& epilogue, bool exact);
void conv(const TensorView& y, const TensorView& x, const ConvWeight& w, const ConvShape& shape,
          const ConvEpilogue& epilogue, bool exact);

// dw[o,c,k] = sum_{n,p} g[n,o,p] x[n, g C + c, p stride + k dilation - before]; db[o] = sum g.
// Of conv_transpose the same with g and x exchanged: dw[c,o,k].
void conv_weight_gradient(const TensorView* dw, const TensorView* db, const TensorView& g,
                          const TensorView& x, const ConvShape& shape);

}  // namespace honed
