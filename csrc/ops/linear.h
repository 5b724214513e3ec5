// y[m,n] = act(sum_k x[m,k] w[n,k] + b[n]) + residual[m,n]      x: (M,K)  w: (N,K)  y: (M,N)
// gated:   y[m,n] = act(gate[m,n]) * up[m,n] + residual[m,n], gate and up products of two weights
//
// Weights are packed once (ops/quantize_weight.h), in panels of 32 output channels, the same at
// every CPU level:
//   f64, f32, f16    [panel][k][channel]
//   bf16             [panel][k / 2][channel][k % 2]
//   int8             [panel][k / 4][channel][k % 4], bytes w + 128; one f32 scale a channel
//   int4             [panel][group]{[channel] f16 steps, [channel] f16 lows,
//                    [k / 8][channel][4] bytes}; w = step * q + low, q in [0, 15]; a byte holds
//                    q of k % 8 in its low and of k % 8 + 4 in its high half
//   grid4            as int4, but multiplied as the float step * q + low
//   grid8            [panel][group]{[channel] f16 steps, [k / 4][channel][4] bytes q + 128};
//                    multiplied as the float step * q
// The last panel is padded with channels of zeros; kinds with groups to whole groups along K.
// A gated weight alternates panels of gate and up.
//
// int8 and int4 multiply integers: each row of x is rounded to int8 with one scale a group of
// inputs (largest magnitude / 127), up to a whole row. Float sums are f32, integer sums are exact.
// With float_rows they multiply rows as they are: int4 as grid4, int8 as the float q, its scale at
// the end.
#pragma once
#include <cstdint>

#include "core/tensor_view.h"

namespace honed {

// Two inputs of a bf16 weight; the second of the last pair is zero where K is odd.
struct Pair {
  bf16 of[2];
};

inline constexpr int kPanel = 32;
inline constexpr int kBlockRows = 168;  // rows of an item, at most

enum class WeightKind : uint8_t { f64, f32, f16, bf16, int8, int4, grid4, grid8 };
// Inputs whose products of int8 surely fit an int32 sum: the longest group.
inline constexpr int kLongestGroup = 1 << 17;

enum class Activation : uint8_t { none, relu, relu6, gelu, gelu_tanh, silu };

// What happens to a product before it is stored:
// activation(scale * product + left right + bias) + residual
struct Epilogue {
  double scale = 1;
  const TensorView* left = nullptr;   // (M, R)
  const TensorView* right = nullptr;  // (R, N)
  const TensorView* bias = nullptr;   // (N,); of a packed weight: its own
  Activation activation = Activation::none;
  const TensorView* residual = nullptr;  // (M, N)
  // f16 rows and a packed f16 weight: sums of kHalfSum products are f16 where that is faster. The
  // error of such a sum is at most kHalfSum 2^-11 / (1 - kHalfSum 2^-11) of the sum of |x w| plus
  // kHalfSum 2^-25; past 65504 it is infinite.
  bool half_sums = false;
};

const char* name_of(WeightKind kind);

// A packed weight as the kernels see it.
struct PackedView {
  WeightKind kind;
  bool gated;
  bool float_rows;   // int8 and int4: rows are not rounded
  int group;         // inputs a scale of the rows; of int4 and the grids: of the weight too
  int64_t n, k;      // outputs (of the gated product: of each half), inputs
  int64_t panels;    // of 32 channels; gated: both halves' panels
  int64_t k_padded;  // whole groups
  int64_t panel_bytes;
  const uint8_t* data;
  const float* scales;  // int8, and int4 beyond f16's range: a packed channel each; else nullptr
  const float* bias;    // likewise; nullptr: none
};

// True where rows are rounded to int8 to meet the weight.
inline bool rounds_rows(const PackedView& w) {
  return (w.kind == WeightKind::int8 || w.kind == WeightKind::int4) && !w.float_rows;
}

// What multiplies, and what the rows are made ready for:
//   plain    FMA of f32 (f64) rows, integer dots of rounded rows
//   dots     bf16 rows and weights, added in pairs
//   tiles    AMX: bf16 rows and weights, or int8 rows and weights of long groups
//   halves   f16 rows and weights, summed in f16 over kHalfSum inputs, in f32 beyond
enum class Way : uint8_t { plain, dots, tiles, halves };
inline constexpr int kLongGroup = 256;  // the shortest that is long
inline constexpr int kHalfSum = 32;

// Rows of x made ready: f32 (f64 for f64; bf16, f16), or int8 with a scale and a sum a group.
struct LinearRows {
  const void* x = nullptr;
  int64_t x_stride = 0;
  const int8_t* q = nullptr;
  int64_t q_stride = 0;
  const float* scale = nullptr;  // (M, groups)
  const int32_t* sum = nullptr;  // (M, groups): of the group's q; times -128 for int8 weights
  Way way = Way::plain;
};

// Where a product goes, and what happens to it on the way.
struct Destination {
  void* y;
  int64_t y_row, y_col;
  DType dtype;  // of y and the residual
  Activation activation = Activation::none;
  double scale = 1;
  const void* bias = nullptr;          // f32 (f64), a channel each, padded to whole panels
  const void* bias_of_rows = nullptr;  // f32 (f64), a row each
  const void* residual = nullptr;
  int64_t residual_row = 0, residual_col = 0;
  bool residual_first = false;  // added before the activation
};

struct LinearArgs {
  PackedView w;
  LinearRows rows;
  int64_t m;
  Destination to;
  const PackedView* plus = nullptr;  // a second product: plus_rows times f32 (f64) panels
  LinearRows plus_rows = {};
};

// Items: a panel (of a gated weight: two) times a block of rows; blocks are the slower index.
int64_t linear_items(const PackedView& w, int64_t m);

// Rows [begin, end) of x (any float type, unit column stride) to int8 with scales.
struct LinearRowsArgs {
  const void* x;
  int64_t x_stride;
  DType dtype;
  int64_t k, k_padded;
  int group, sum_times;
  int8_t* q;
  int64_t q_stride;
  float* scale;
  int32_t* sum;
};
// What the rows of a weight that rounds them need, carved from one block of linear_rows_bytes(w, m);
// no bytes for other weights.
int64_t linear_rows_bytes(const PackedView& w, int64_t m);
LinearRowsArgs linear_rows_args(const PackedView& w, int64_t m, void* block, LinearRows* rows);

// y (M,N), x (M,K) with unit column strides.
void linear(const TensorView& y, const TensorView& x, const PackedView& w,
            const Epilogue& epilogue = {});

}  // namespace honed
