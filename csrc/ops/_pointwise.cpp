// Checks of elementwise ops, then the kernel.
#include "ops/_pointwise.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

void run_pointwise(const char* op, cpu::Kernel<PointwiseArgs> kernel,
                   std::initializer_list<const TensorView*> out, std::initializer_list<Operand> in,
                   int64_t operations, bool tanh) {
  const Operand& first = *in.begin();
  PointwiseArgs args{};
  args.rows = first.view->size(0);
  args.cols = first.view->size(1);
  args.tanh = tanh;
  args.dtype = first.view->dtype;
  HONED_CHECK_TYPE(is_real(args.dtype), op, ": ", first.name, " is ", name_of(args.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  int at = 0;
  for (const Operand& each : in) {
    HONED_CHECK_TYPE(each.view->dtype == args.dtype, op, ": ", each.name, " is ",
                     name_of(each.view->dtype), ", expected ", first.name, "'s type, ",
                     name_of(args.dtype));
    args.in[at] = each.view->data;
    args.in_stride[at++] = each.view->stride(0);
  }
  at = 0;
  for (const TensorView* each : out) {
    args.out[at] = each ? each->data : nullptr;
    args.out_stride[at++] = each ? each->stride(0) : 0;
  }
  bool blocks = args.rows == 1;
  int64_t items = blocks ? (args.cols + kPointwiseBlock - 1) / kPointwiseBlock : args.rows;
  cpu::run(kernel, args, items,
           cpu::grain_for(operations * (blocks ? kPointwiseBlock : args.cols)));
}

}  // namespace honed
