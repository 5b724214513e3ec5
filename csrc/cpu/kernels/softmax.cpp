// y = e^(x - max) / sum: the maximum, then the exponentials with their sum, then the quotient; pieces
// of few wide rows; gradients.
#include "ops/softmax.h"

#include "cpu/kernels/softmax_rows.h"

HONED_BEGIN_LEVEL

namespace {

template <class T, class Y>
void rows(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    Y* y = static_cast<Y*>(a.y) + r * a.y_stride;
    Sum<T>* e;
    if constexpr (sizeof(Y) == sizeof(Sum<T>))
      e = y;
    else
      e = static_cast<Sum<T>*>(a.buffer);
    Sum<T> sum = exponentials(x, a.cols, max_of(x, a.cols),
                              [&](int64_t c, Vec<T> v, int n) { store(e + c, v, n); });
    Vec<T> scale = set1(1 / sum), whole = set1(sum);
    for_lanes_of<T>(a.cols, [&](int64_t c, int n) {
      store(y + c, sizeof(T) == 8 ? load(e + c, n) / whole : load(e + c, n) * scale, n);
    });
  }
}

// A piece of a row: its first column and how many.
struct Piece {
  int64_t row, index, from, cols;
};
HONED_INLINE Piece piece_of(const SoftmaxArgs& a, int64_t item) {
  int64_t pieces = (a.cols + kSoftmaxPiece - 1) / kSoftmaxPiece;
  int64_t from = item % pieces * kSoftmaxPiece, left = a.cols - from;
  return {item / pieces, item % pieces, from, left < kSoftmaxPiece ? left : kSoftmaxPiece};
}

template <class T>
void parts(const SoftmaxArgs& a, int64_t item) {
  Piece p = piece_of(a, item);
  const T* x = static_cast<const T*>(a.x) + p.row * a.x_stride + p.from;
  Sum<T>* to = static_cast<Sum<T>*>(a.parts) + 2 * item;
  to[0] = max_of(x, p.cols);
  // Of -inf alone the sum is 0, of a NaN beside it NaN.
  Sum<T> max = to[0] == Sum<T>(-kInfinity) ? Sum<T>(0) : to[0];
  to[1] = exponentials(x, p.cols, max, [](int64_t, Vec<T>, int) {});
}

template <class T, class Y>
void finish(const SoftmaxArgs& a, int64_t item) {
  Piece p = piece_of(a, item);
  const Sum<T>* part = static_cast<const Sum<T>*>(a.parts) + 2 * (item - p.index);
  int64_t pieces = (a.cols + kSoftmaxPiece - 1) / kSoftmaxPiece;
  Sum<T> max = part[0], sum = 0;
  for (int64_t i = 1; i < pieces; ++i) max = part[2 * i] > max ? part[2 * i] : max;
  for (int64_t i = 0; i < pieces; ++i)
    sum += part[2 * i + 1] * reduce_max(vexp(set1(part[2 * i] - max)));
  const T* x = static_cast<const T*>(a.x) + p.row * a.x_stride + p.from;
  Y* y = static_cast<Y*>(a.y) + p.row * a.y_stride + p.from;
  if (a.log) return log_softmax_row(x, y, p.cols, max, logarithm(sum));
  Vec<T> m = set1(max), scale = set1(1 / sum);
  for_lanes_of<T>(p.cols,
                  [&](int64_t c, int n) { store(y + c, vexp(load(x + c, n) - m) * scale, n); });
}

template <class T, class Y>
void rows_backward(const SoftmaxBackwardArgs& a, int64_t r) {
  const Y* g = static_cast<const Y*>(a.g) + r * a.g_stride;
  const Y* y = static_cast<const Y*>(a.y) + r * a.y_stride;
  T* dx = static_cast<T*>(a.dx) + r * a.dx_stride;
  Vec<Y> sum = set1(sum_row<Y>(a.cols, [&](int64_t c, int n) {
    Vec<Y> v = load(g + c, n);
    return a.log ? v : v * load(y + c, n);
  }));
  if (a.log)
    for_lanes_of<Y>(a.cols, [&](int64_t c, int n) {
      store(dx + c, load(g + c, n) - vexp(load(y + c, n)) * sum, n);
    });
  else
    for_lanes_of<Y>(a.cols, [&](int64_t c, int n) {
      store(dx + c, load(y + c, n) * (load(g + c, n) - sum), n);
    });
}

}  // namespace

void softmax(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  visit_softmax(a.dtype, a.y_dtype, [&](auto t, auto y) {
    rows<typename decltype(t)::type, typename decltype(y)::type>(a, begin, end);
  });
}

void softmax_parts(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t i = begin; i < end; ++i) parts<typename decltype(t)::type>(a, i);
  });
}

void softmax_finish(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  visit_softmax(a.dtype, a.y_dtype, [&](auto t, auto y) {
    for (int64_t i = begin; i < end; ++i)
      finish<typename decltype(t)::type, typename decltype(y)::type>(a, i);
  });
}

void softmax_backward(const SoftmaxBackwardArgs& a, int64_t begin, int64_t end) {
  visit_softmax(a.dtype, a.y_dtype, [&](auto t, auto y) {
    for (int64_t r = begin; r < end; ++r)
      rows_backward<typename decltype(t)::type, typename decltype(y)::type>(a, r);
  });
}

HONED_END_LEVEL
