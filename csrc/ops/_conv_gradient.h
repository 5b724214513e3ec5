// The weight's and bias's gradient of a convolution (ops/conv.h), one group at a time.
//
// A step takes the same strip of output pixels out of some images: x's strip with its border and g's,
// channels side by side, are copied for all threads; then tiles of dw are added up over the step's
// pixels, each by one thread and in a fixed order, so that the bits do not depend on threads.
//
// What already lies so, f32 with its channels side by side and without border, is read where it lies.
//
// A run is what lies together in x's strip for one step of the kernel: the C inputs of an element, or
// the KW C inputs of a row of elements where C fills no vectors. Either runs are vectors and outputs are
// broadcast, or outputs are vectors: whatever leaves fewer lanes empty.
#pragma once
#include "ops/conv.h"

namespace honed {

inline constexpr int kGradientRows = 56;     // broadcast values of an item
inline constexpr int kGradientPixels = 384;  // that a tile adds up at once

struct ConvGradientArgs {
  ConvImage x, g;
  ConvShape shape;
  int64_t group, channels, outputs;  // of a group
  int64_t taps[3], run;              // elements of the kernel that are runs of their own
  bool outputs_are_lanes;
  int64_t lanes, row_count, lane_row;  // dw as sums[part][tap][row][lane], lane_row >= lanes
  int64_t parts;                       // of a step's pixels, each with sums of its own
  bool weight, bias;                   // wanted

  int64_t n, units, first[3], rows,
      cols;                       // the step: images, strip of output pixels (of one plane)
  bool add;                       // not the first step
  int64_t x_count[3], x_step[3];  // positions of x's strip, and how far apart in x
  int64_t next[3];                // positions from output pixel to output pixel
  int64_t x_pixel, x_row, x_plane, x_unit, g_pixel, g_row, g_unit;  // elements
  bool x_lies, g_lies;             // no copy: the strip is x or g itself
  int64_t g_rows;                  // rows of g that are copied at once
  void *x_strip, *g_strip, *sums;  // f32 (f64)
  double* bias_sums;

  void *dw, *db;  // of the group
  DType dtype;
  int64_t dw_o, dw_c, dw_k[3], db_o;  // strides
};
int64_t gradient_row_items(const ConvGradientArgs& args);  // conv_gradient_rows: rows of the strips
int64_t gradient_tile_items(const ConvGradientArgs& args);  // conv_weight_gradient
// conv_gradient_store: items are outputs

}  // namespace honed
