// What the normalisations share: checks, and sums over rows that do not depend on the threads.
#pragma once
#include "core/arena.h"
#include "core/tensor_view.h"

namespace honed {

// to[c] = sum_i from[i,c] in the order of i        from: (R,C) f32, f64 where to is f64
struct ColumnSumsArgs {
  const void* from;
  void* to;
  int64_t rows, cols;
  DType dtype;  // of to
};
inline constexpr int64_t kSumColumns = 64;  // columns an item

// x: (R,C), w: (C,) or absent, and for a backward g like x.
void check_norm(const char* op, const TensorView& x, const TensorView* w, const TensorView* g);

// Sums over the rows of x, one a column, that a kernel makes by blocks of kNormRows rows: up to two
// tensors (C,), each nullptr where it is not wanted.
class ColumnSums {
 public:
  ColumnSums(const TensorView* to, const TensorView& x, const TensorView* also = nullptr);
  int64_t blocks() const { return blocks_; }
  void* partial(int which) const;  // (blocks,C), or nullptr
  void add() const;                // partial sums to the tensors

 private:
  const TensorView* to_[2];
  int64_t blocks_, cols_, bytes_;
  Scratch scratch_;
};

}  // namespace honed
