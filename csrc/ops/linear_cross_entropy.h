// The cross entropy (ops/cross_entropy.h) of logits x w^T + b        x: (R,K)  w: (C,K)  b: (C,)
//
// Logits exist for a chunk of rows at a time, in scratch, of x's type. Gradients are made of them in
// place: dlogits, then dx = dlogits w, dw = sum over chunks of dlogits^T x, db of dlogits. Sums over
// chunks are f32 (f64 for f64) and rounded once.
#pragma once
#include "ops/cross_entropy.h"

namespace honed {

// The products and losses are the kernels of their ops; its own rounds what was summed over chunks.
// Items: blocks of kRoundBlock elements.
struct LinearCrossEntropyArgs {
  const float* from;
  void* to;
  int64_t count;
  DType dtype;  // of to: f16 or bf16
};
inline constexpr int64_t kRoundBlock = 4096;

struct LinearLoss {
  TensorView x, w, target;
  const TensorView *b, *class_weight, *grad;  // nullptr: none; grad: of the losses of rows, (R,)
  LossOptions options;
  int64_t chunk;                   // rows; 0: chosen
  TensorView loss;                 // (R,) or ()
  const TensorView *dx, *dw, *db;  // contiguous; nullptr: not wanted
};

// Logits of a chunk. More rows cost memory, fewer read and add to dw more often: 160 rows of 50257
// classes keep the peak at a sixth of what whole logits need (2048 rows, 768 inputs, f32).
inline constexpr int64_t kChunkBytes = int64_t{32} << 20;
// Classes of a product: their weights, arranged, stay in the last cache and take little memory.
inline constexpr int64_t kClassBlock = 2048;

void linear_cross_entropy(const LinearLoss& loss);

}  // namespace honed
