// What the elementwise ops share: arguments, checks, the choice of pieces for threads.
#pragma once
#include <initializer_list>

#include "core/tensor_view.h"
#include "cpu/table.h"

namespace honed {

// Operands and results of one element type, all (R,C) with any row stride and unit stride along C.
// Parallel over rows where there are several, else over the blocks of kPointwiseBlock columns of
// the only row. A result may be the same memory as an operand. Arithmetic is f32, f64 for f64.
struct PointwiseArgs {
  const void* in[3];
  void* out[2];  // nullptr: not wanted
  int64_t in_stride[3], out_stride[2], rows, cols;
  bool tanh;  // of gelu and geglu: the approximation
  DType dtype;
};
inline constexpr int64_t kPointwiseBlock = 1024;

struct Operand {
  const char* name;
  const TensorView* view;  // 2-D, all of one shape
};

// Refuses operands of unlike types, then runs the kernel; `operations` an element.
void run_pointwise(const char* op, cpu::Kernel<PointwiseArgs> kernel,
                   std::initializer_list<const TensorView*> out, std::initializer_list<Operand> in,
                   int64_t operations, bool tanh = false);

}  // namespace honed
