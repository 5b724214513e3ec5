// honed._core.adaptive_avg_pool, adaptive_avg_pool_backward
#include "ops/adaptive_avg_pool.h"

#include "bindings/pool.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, int64_t dims, int64_t out_h,
             int64_t out_w) {
  const char* op = dims == 1 ? "adaptive_avg_pool1d" : "adaptive_avg_pool2d";
  PoolArgs args = adaptive_args(op, input, dims, out_h, out_w);
  int channel = channel_of(input, dims);
  bool last = args.channels_last = lies_channels_last(input, channel);
  TensorView out = make_in_layout(results, resized(input, dims, out_h, out_w), channel, last);
  return [=] {
    Dense x(in_layout(input, channel, last));
    adaptive_avg_pool(out, *x.view(), args);
  };
}

auto backward(Results& results, const TensorView& grad, int64_t dims, int64_t h, int64_t w,
              bool channels_last) {
  TensorView input = input_of("adaptive_avg_pool_backward", grad, dims, h, w);
  PoolArgs args = adaptive_args("adaptive_avg_pool_backward", input, dims,
                                dims == 2 ? grad.size(-2) : 1, grad.size(-1));
  int channel = channel_of(input, dims);
  args.channels_last = channels_last;
  TensorView d_input = make_in_layout(results, input, channel, channels_last);
  return [=] {
    Dense g(in_layout(grad, channel, channels_last));
    adaptive_avg_pool_backward(d_input, *g.view(), args);
  };
}

}  // namespace

void bind_adaptive_avg_pool(py::module_& m) {
  define<forward>(
      m, "adaptive_avg_pool(Tensor input, int dims, SymInt out_h, SymInt out_w) -> Tensor");
  define<backward>(m,
                   "adaptive_avg_pool_backward(Tensor grad, int dims, SymInt h, SymInt w, bool "
                   "channels_last) -> Tensor");
}

}  // namespace honed::bindings
