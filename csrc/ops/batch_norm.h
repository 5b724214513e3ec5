// y[b,c,s] = act((x[b,c,s] - mean[c]) / dev[c] * w[c] + b[c] + residual[b,c,s]), dev = sqrt(var + eps)
// with the moments given, or those of x over b and s (var: biased)
//
// g = dy where act passes (low < y < high), else 0; n = (x - mean) / dev; means over b and s:
// dx = (g - mean(g) - n mean(g n)) w / dev, without the means where the moments were given,
// dresidual = g, dw[c] = sum g n, db[c] = sum g
//
// x, y, residual: (B,C,S), or with the channels last (B,S,C), dense. Sums are f32, f64 for f64; vectors of C have
// their type, and are widened to it where they come in a narrower one.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct BatchNormShape {
  int64_t batch, channels, size;  // B, C, S
  bool channels_last;
};

// Sums of channels that lie last are made of blocks of rows, the same for any threads, in items of
// (block, kBatchNormPiece channels).
struct BatchNormArgs {
  const void *x, *residual;  // residual nullptr: none
  void* y;
  const void *w, *b;          // of batch_norm_planes; nullptr: ones, zeros
  void *mean, *var;           // batch_norm_planes writes them, var unbiased; batch_norm reads mean
  const void *scale, *shift;  // of batch_norm: w / dev, b
  void* parts;  // of batch_norm_moments: means and summed squares around them, (blocks,2,C)
  BatchNormShape shape;
  int64_t block;     // rows
  double low, high;  // act: the result is kept between them; NaN: no bound
  double eps;
  DType dtype;
};

struct BatchNormBackwardArgs {
  const void *g, *x, *y;               // y nullptr: without act
  void *dx, *d_residual;               // nullptr: not wanted
  const void *mean, *scale, *inverse;  // scale: w / dev, inverse: 1 / dev
  void* sums;  // of g and of g (x - mean): (2,C), of batch_norm_backward_sums (blocks,2,C)
  const void *shift, *back;  // of batch_norm_backward_rows: mean(g) and mean(g n) / dev
  BatchNormShape shape;
  int64_t block;
  double low, high;
  bool training;  // the moments are those of x
  DType dtype;
};

inline constexpr int64_t kBatchNormPiece = 64;

struct BatchNormVectors {                // (C)
  const TensorView *mean, *var, *w, *b;  // nullptr: none
};
enum class BatchNormActivation : int64_t { none, relu, relu6 };

// With the given moments.
void batch_norm(const TensorView& y, const TensorView& x, const BatchNormVectors& vectors,
                const TensorView* residual, double eps, BatchNormActivation activation,
                const BatchNormShape& shape);
// With those of x, which are results: mean and unbiased var, in the type of sums.
void batch_norm_training(const TensorView& y, const TensorView& mean, const TensorView& var,
                         const TensorView& x, const BatchNormVectors& vectors,
                         const TensorView* residual, double eps, BatchNormActivation activation,
                         const BatchNormShape& shape);

struct BatchNormGradients {
  const TensorView *dx, *d_residual, *dw, *db;  // nullptr: not wanted
  const TensorView &g, &x;
  const TensorView* y;       // nullptr where there is no activation
  BatchNormVectors vectors;  // mean, and var as it was given or is a result
};
void batch_norm_backward(const BatchNormGradients& gradients, double eps,
                         BatchNormActivation activation, const BatchNormShape& shape,
                         bool training);

}  // namespace honed
