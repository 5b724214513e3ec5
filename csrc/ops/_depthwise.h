// Convolution of every channel by itself: y[n, c m + j] is made of x[n, c] alone, m the multiplier.
//
// Two ways. channels: channels lie side by side in x, a vector holds channels of a pixel; the image
// is read where it lies. rows: any strides, best along W; a vector holds pixels of a channel, read
// from copies of a few rows with their border. A multiplier is m convolutions whose outputs lie m
// channels apart; the gradient of the input is, of a stride s, s convolutions an axis with every
// s-th element of the flipped kernel, whose sums run over the m outputs of a channel, its planes.
#pragma once
#include "ops/conv.h"

namespace honed {

// The copies of depthwise_rows: a row of the input has a piece of `pitch` elements a residue modulo
// the stride; rows of the output next to each other read rows next_row apart. next_row 0: an item
// has one row, and only the rows that its kernel meets are copied.
struct DepthwiseCopy {
  int64_t pitch, row, plane, next_row, elements;
  int64_t taps, data;  // of all planes; where the copies begin in the scratch, in bytes
};

// y[n, c, p] = activation(sum_{j,k} w[j, k, c] x[n, c, j, p stride + k dilation - before] + bias[c]
//                         + residual[n, c, p])
// Strides are in elements. Items of depthwise: pieces of rows of y times blocks of channels, pieces
// the fastest; of depthwise_rows: images of a channel in blocks of rows and of columns.
struct DepthwiseArgs {
  ConvImage x;
  int64_t planes, x_plane;  // j
  void* y;
  int64_t y_n, y_c, y_s[3], size[3];
  const void* residual;  // nullptr: none
  int64_t residual_n, residual_c, residual_s[3];
  const void* w;  // f32, f64 for f64; of channels side by side
  int64_t w_plane, w_tap[3];
  const void* bias;  // f32 (f64), nullptr: none
  int64_t bias_c;
  Activation activation;
  int64_t kernel[3], stride[3], dilation[3], before[3];
  Border border;
  int64_t block[3];  // channels, rows, columns of an item
  DepthwiseCopy copy;
  void* scratch;  // of this thread: rows of the kernel (16 bytes each), or the copies
};

// The gradient of an input whose border is made of inputs: positions of dx that the kernel meets as
// border too; the others are left as they are. x: g, y: dx, the rest the convolution's. Items: rows
// of dx.
struct DepthwiseFoldArgs {
  DepthwiseArgs conv;
};

// dw[j, k, c] = sum_{n,p} g[n, c, j, p] x[n, c, p stride + k dilation - before], in parts by the
// shape alone: of depthwise_sums, part i takes `part` rows of g after each other, of
// depthwise_row_sums so many of the blocks that conv has. Items: parts times blocks of channels,
// parts the faster; of depthwise_row_sums parts times channels, these the faster.
struct DepthwiseSumsArgs {
  DepthwiseArgs conv;  // sizes are g's; planes 1
  ConvImage g;
  int64_t planes, g_plane;  // j
  void* sums;               // [part][tap][j][c], f32 (f64)
  int64_t part, parts;
};

// w to [tap][O]; items of kDepthwiseItem outputs.
struct DepthwiseWeightArgs {
  const void* w;
  DType dtype;
  int64_t outputs, o, kernel[3], k[3];  // sizes and strides
  void* to;
};
inline constexpr int64_t kDepthwiseItem = 64;

// Whether `groups` are the channels of x and a few outputs each: what the functions below take.
bool is_depthwise(const TensorView& x, const TensorView& w, const ConvShape& shape);

// w: (O, 1, KD, KH, KW) to [tap][O] of f32, f64 for f64.
int64_t depthwise_weight_bytes(const TensorView& w);
void depthwise_weight(const TensorView& w, void* to);

// x, y, g, dx: (N, channels, D, H, W); packed: of depthwise_weight. y does not overlap the residual.
void depthwise(const TensorView& y, const TensorView& x, const void* packed, const ConvShape& shape,
               const ConvEpilogue& epilogue);
void depthwise_input_gradient(const TensorView& dx, const TensorView& g, const void* packed,
                              const ConvShape& shape);
void depthwise_weight_gradient(const TensorView& dw, const TensorView& g, const TensorView& x,
                               const ConvShape& shape);

}  // namespace honed
