// What the poolings share: sizes of windows and results, checks.
#pragma once
#include "core/tensor_view.h"

namespace honed {

// One spatial dimension: tap k of output o is element o stride - padding + k dilation.
struct PoolAxis {
  int64_t in, out, kernel, stride, padding, dilation;
};

// Tensors are (B,C,h,w) in that order, or with the channels last, (B,h,w,C); an absent h is 1.
struct PoolArgs {
  const void* from;  // x; of a backward g
  void* to;          // y; of a backward dx
  void*
      codes;  // of max_pool, like y: the tap that was taken, its row times w.kernel and its column; or
              // nullptr. i8 where the kernel has at most kSmallKernel taps, else i32
  int64_t*
      indices;  // of max_pool, like y: where in the plane that is, row w.in + column; or nullptr
  int64_t batch, channels;
  PoolAxis h, w;
  bool channels_last;
  bool include_padding;  // of avg_pool: the divisor counts padding
  int64_t divisor;       // of avg_pool: the divisor itself; 0: the size of the window
  DType dtype;
};
inline constexpr int64_t kSmallKernel = 128;
inline constexpr int64_t kPoolChannels =
    256;  // of adaptive_avg_pool with the channels last: a piece

struct PoolWindow {  // [0]: h, [1]: w
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool ceil;
};

// The sizes, checked as torch does. x: (C,...) or (B,C,...) with `dims` spatial dimensions, 1 or 2. `max`: as
// max_pool, whose padding may be half of a kernel with its holes.
PoolArgs pool_args(const char* op, const TensorView& x, int64_t dims, const PoolWindow& window,
                   bool max);
// Those of a result of given size: h and w have in and out alone.
PoolArgs adaptive_args(const char* op, const TensorView& x, int64_t dims, int64_t out_h,
                       int64_t out_w);

// For a backward: g has the spatial sizes of a result.
void check_pool_grad(const char* op, const PoolArgs& args, const TensorView& g, int64_t dims);

}  // namespace honed
