// l[r,c] = softcap tanh(x[r,c] / softcap), or x          lse[r] = log sum_c exp(l[r,c])
// loss[r] = sum_c q[r,c] w[c] (lse[r] - l[r,c]) + z_loss lse[r]^2,  q = (1 - s) [c == t[r]] + s / C
// dx[r,c] = g[r] dl/dx ((A + 2 z_loss lse[r]) exp(l[r,c] - lse[r]) - q[r,c] w[c]),  A = sum_c q w
//
// x: (R,C) of any element type, any row stride, unit stride along C; dx like it, and may be the same
// memory. Sums are f32, f64 for f64. A row whose target is ignored has neither loss nor gradient.
// Parallel over rows, each read once from memory.
#pragma once
#include <memory>

#include "core/tensor_view.h"

namespace honed {

enum class Reduction : uint8_t { none, mean, sum };

struct LossOptions {
  int64_t ignore_index;
  Reduction reduction;
  double smoothing, z_loss, softcap;  // softcap 0: none
};

inline constexpr int64_t kIgnored = -1;  // as a target below

struct CrossEntropyArgs {
  const void* x;
  const int64_t* target;  // in [0, cols), or kIgnored
  const void* w;          // of the sums' type; nullptr: ones
  double w_sum;
  double* loss;        // cross_entropy writes it: (rows)
  void* lse;           // (rows,2) of the sums' type, the largest logit and the log of the sum below
                       // it, which add up to lse: cross_entropy writes, its backward reads
  void* dx;            // nullptr: not wanted
  const double* grad;  // of the loss: a row each, or
  int64_t grad_stride;  // 0: one for all
  int64_t rows, cols, x_stride, dx_stride;
  double smoothing, z_loss, softcap;
  DType dtype;
};

// Targets and class weights as the kernels take them.
class LossTargets {
 public:
  // target: int64, int32 or uint8, contiguous. std::out_of_range names the first that is no class.
  // weight: (classes,) or nullptr; `dtype` is that of the logits.
  LossTargets(const char* op, const TensorView& target, const TensorView* weight, int64_t classes,
              DType dtype, int64_t ignore_index);
  // Sum of the weights of the targets, without the ignored: what a mean divides by.
  double total() const { return total_; }
  // Arguments of the rows from `first` on, without x and what is to be made of it.
  CrossEntropyArgs args(const LossOptions& options, int64_t first, int64_t rows) const;

 private:
  int64_t classes_;
  DType dtype_;
  double total_ = 0, w_sum_;
  std::unique_ptr<int64_t[]> target_;
  std::unique_ptr<char[]> w_;
};

// Elements of a contiguous tensor of any real type, as f64 and from it.
void widen(const TensorView& from, double* to);
void put_number(const TensorView& to, int64_t at, double value);

void check_loss(const char* op, const LossOptions& options, DType dtype);
// The factor that a reduction gives every row.
double factor_of(Reduction reduction, double total);
// What becomes of the losses of rows: a row each or one number, of out's type.
void reduce_loss(const TensorView& out, const double* losses, int64_t rows, Reduction reduction,
                 double total);
void run_cross_entropy(const CrossEntropyArgs& args, bool backward = false);

// x: (R,C); loss: (R,) or (); lse: (R,2) f32 (f64) or nullptr; dx: the gradient of the reduced loss,
// or nullptr.
void cross_entropy(const TensorView& loss, void* lse, const TensorView* dx, const TensorView& x,
                   const TensorView& target, const TensorView* weight, const LossOptions& options);
// grad: that of the loss, (R,) contiguous, of any real type.
void cross_entropy_backward(const TensorView& dx, const TensorView& grad, const TensorView& x,
                            const TensorView& target, const TensorView* weight, const void* lse,
                            const LossOptions& options);

}  // namespace honed
