// honed._core.avg_pool, avg_pool_backward
#include "ops/avg_pool.h"

#include "bindings/pool.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, int64_t dims, int64_t kernel_h,
             int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h,
             int64_t padding_w, bool ceil_mode, bool include_padding, int64_t divisor) {
  PoolWindow window{
      {kernel_h, kernel_w}, {stride_h, stride_w}, {padding_h, padding_w}, {1, 1}, ceil_mode};
  PoolArgs args = pool_args(dims == 1 ? "avg_pool1d" : "avg_pool2d", input, dims, window, false);
  int channel = channel_of(input, dims);
  bool last = args.channels_last = lies_channels_last(input, channel);
  args.include_padding = include_padding;
  args.divisor = divisor;
  TensorView out =
      make_in_layout(results, resized(input, dims, args.h.out, args.w.out), channel, last);
  return [=] {
    Dense x(in_layout(input, channel, last));
    avg_pool(out, *x.view(), args);
  };
}

auto backward(Results& results, const TensorView& grad, int64_t dims, int64_t h, int64_t w,
              int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
              int64_t padding_h, int64_t padding_w, bool ceil_mode, bool include_padding,
              int64_t divisor, bool channels_last) {
  PoolWindow window{
      {kernel_h, kernel_w}, {stride_h, stride_w}, {padding_h, padding_w}, {1, 1}, ceil_mode};
  TensorView input = input_of("avg_pool_backward", grad, dims, h, w);
  PoolArgs args = pool_args("avg_pool_backward", input, dims, window, false);
  check_pool_grad("avg_pool_backward", args, grad, dims);
  int channel = channel_of(input, dims);
  args.channels_last = channels_last;
  args.include_padding = include_padding;
  args.divisor = divisor;
  TensorView d_input = make_in_layout(results, input, channel, channels_last);
  return [=] {
    Dense g(in_layout(grad, channel, channels_last));
    avg_pool_backward(d_input, *g.view(), args);
  };
}

}  // namespace

void bind_avg_pool(py::module_& m) {
  define<forward>(m,
                  "avg_pool(Tensor input, int dims, int kernel_h, int kernel_w, int stride_h, int "
                  "stride_w, int padding_h, int padding_w, bool ceil_mode, bool include_padding, "
                  "int divisor) -> Tensor");
  define<backward>(m,
                   "avg_pool_backward(Tensor grad, int dims, SymInt h, SymInt w, int kernel_h, int "
                   "kernel_w, int stride_h, int stride_w, int padding_h, int padding_w, bool "
                   "ceil_mode, bool include_padding, int divisor, bool channels_last) -> Tensor");
}

}  // namespace honed::bindings
