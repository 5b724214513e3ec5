// y = activation(scale * a b + left right + bias) + residual
//
// a: (..., M, K)  b: (..., K, N)  y: (..., M, N), the same leading dimensions (a stride of 0 repeats
// a matrix), any strides. left: (M, R), right: (R, N), R small, bias: (N,), residual: like y, only
// without leading dimensions. All of one type: f64, f32, f16 or bf16; sums are f64 for f64, f32 for
// the others; y and residual may both be f32 beside narrower operands.
//
// Few rows are multiplied where the operands lie: rows of b as the weights of a tile, or columns of
// b in dot products. Else b is arranged in the panels of ops/linear.h, a in rows of unit stride
// (where it is not), and the kernel of linear does the rest.
#pragma once
#include "core/arena.h"
#include "ops/linear.h"

namespace honed {

inline constexpr int kMatmulRows = 28, kMatmulPanels = 4;  // of an item
inline constexpr int kTurned = 16;                         // rows of an item of matmul_rows

struct MatmulArgs {
  const void *a, *b;                   // a: f32 (f64) rows; of dots: b's type
  int64_t a_row, a_col, b_row, b_col;  // strides, in elements
  int64_t m, n, k;
  bool dots;    // unit strides along k; else b has unit column stride
  bool bf16;    // dots of bf16 by its dot instruction
  DType dtype;  // of b
  Destination to;
};
int64_t matmul_items(int64_t m, int64_t n);

// A strided matrix rows x cols to `to`: f64 for f64; bf16 where `narrow`; else f32.
//   matmul_rows    to[i][j], rows to_row apart (narrow: f16 too, whose bits are copied as if bf16); items of kTurned rows
//   matmul_panels  to[j / kPanel][i][j % kPanel]; narrow: [i / 2][j % kPanel][i % 2]; items of a panel
struct MatmulArrangeArgs {
  const void* from;
  DType dtype;
  int64_t rows, cols, row, col;
  void* to;
  int64_t to_row;
  bool narrow;
};

// A matrix of any strides.
struct Strided {
  const void* data;
  DType dtype;
  int64_t row, col;
};

// Refuses left and right of an epilogue that are no (m, R) and (R, n) of the type.
void check_plus(const char* op, const Epilogue& epilogue, int64_t m, int64_t n, DType dtype);

// left right of an epilogue, arranged for the kernel of linear. `wide`: of the sums.
class SecondProduct {
 public:
  SecondProduct(const Epilogue& epilogue, int64_t m, int64_t n, DType wide);
  void attach(LinearArgs& args, int64_t first_row) const;

 private:
  int64_t inner_, size_;
  Scratch rows_, panels_;
  PackedView w_;
};

// y = x w, as linear: x rows of any strides, w with float weights; `panels`: w, still to be
// arranged.
void multiply(const Strided& x, int64_t m, const PackedView& w, const Destination& to,
              const Epilogue& epilogue, const MatmulArrangeArgs* panels = nullptr);

void matmul(const TensorView& y, const TensorView& a, const TensorView& b,
            const Epilogue& epilogue = {});

}  // namespace honed
