// honed._core.max_pool, max_pool_backward
#include "ops/max_pool.h"

#include "bindings/pool.h"

namespace honed::bindings {

namespace {

const char* name_of_op(int64_t dims) { return dims == 1 ? "max_pool1d" : "max_pool2d"; }

auto forward(Results& results, const TensorView& input, int64_t dims, int64_t kernel_h,
             int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h,
             int64_t padding_w, int64_t dilation_h, int64_t dilation_w, bool ceil_mode,
             bool keep_codes, bool return_indices) {
  PoolWindow window{{kernel_h, kernel_w},
                    {stride_h, stride_w},
                    {padding_h, padding_w},
                    {dilation_h, dilation_w},
                    ceil_mode};
  PoolArgs args = pool_args(name_of_op(dims), input, dims, window, true);
  int channel = channel_of(input, dims);
  bool last = args.channels_last = lies_channels_last(input, channel);
  TensorView shape = resized(input, dims, args.h.out, args.w.out);
  TensorView out = make_in_layout(results, shape, channel, last), codes, indices;
  auto make_if = [&](bool wanted, DType dtype) {
    if (!wanted) return results.skip(), TensorView{};
    shape.dtype = dtype;
    return make_in_layout(results, shape, channel, last);
  };
  codes = make_if(keep_codes, type_of_codes(args));
  indices = make_if(return_indices, DType::i64);
  return [=] {
    Dense x(in_layout(input, channel, last));
    max_pool(out, keep_codes ? &codes : nullptr, return_indices ? &indices : nullptr, *x.view(),
             args);
  };
}

auto backward(Results& results, const TensorView& grad, const TensorView& codes, int64_t dims,
              int64_t h, int64_t w, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
              int64_t stride_w, int64_t padding_h, int64_t padding_w, int64_t dilation_h,
              int64_t dilation_w, bool ceil_mode, bool channels_last) {
  PoolWindow window{{kernel_h, kernel_w},
                    {stride_h, stride_w},
                    {padding_h, padding_w},
                    {dilation_h, dilation_w},
                    ceil_mode};
  TensorView input = input_of("max_pool_backward", grad, dims, h, w);
  PoolArgs args = pool_args("max_pool_backward", input, dims, window, true);
  check_pool_grad("max_pool_backward", args, grad, dims);
  int channel = channel_of(input, dims);
  args.channels_last = channels_last;
  TensorView d_input = make_in_layout(results, input, channel, channels_last);
  return [=] {
    Dense g(in_layout(grad, channel, channels_last)),
        taken(in_layout(codes, channel, channels_last));
    max_pool_backward(d_input, *g.view(), *taken.view(), args);
  };
}

}  // namespace

void bind_max_pool(py::module_& m) {
  define<forward>(m,
                  "max_pool(Tensor input, int dims, int kernel_h, int kernel_w, int stride_h, int "
                  "stride_w, int padding_h, int padding_w, int dilation_h, int dilation_w, bool "
                  "ceil_mode, bool keep_codes, bool return_indices) -> (Tensor, Tensor, Tensor)");
  define<backward>(m,
                   "max_pool_backward(Tensor grad, Tensor codes, int dims, SymInt h, SymInt w, int "
                   "kernel_h, int kernel_w, int stride_h, int stride_w, int padding_h, int "
                   "padding_w, int dilation_h, int dilation_w, bool ceil_mode, bool "
                   "channels_last) -> Tensor");
}

}  // namespace honed::bindings
