// The gradient of depthwise weights, vectors over columns: blocks of rows of a channel are copied
// as for the convolution itself; every product of the kernel is a sum over the pixels of g.
#include "cpu/kernels/depthwise_copy.h"
#include "cpu/kernels/depthwise_finish.h"

HONED_BEGIN_LEVEL
namespace {

template <class T>
struct Block {
  const Copies<Sum<T>>& copies;
  const T* g;
  int64_t g_row, g_step, rows, columns;
};

// sums[t] += the sum over the block of g times the inputs of products [t, t + products)
template <class T, int products>
void add_products(const Block<T>& block, int64_t t, Sum<T>* sums, int64_t step) {
  using S = Sum<T>;
  Vec<T> sum[products];
  const S* from[products];
#pragma GCC unroll 16
  for (int i = 0; i < products; ++i) {
    sum[i] = set1(S(0));
    from[i] = block.copies.data + block.copies.offset[t + i];
  }
  for (int64_t h = 0; h < block.rows; ++h) {
    const int64_t row = h * block.copies.next_row;
    for_lanes_of<T>(block.columns, [&](int64_t w, int n) {
      const Vec<T> g = load_apart(block.g + h * block.g_row + w * block.g_step, block.g_step, n);
#pragma GCC unroll 16
      for (int i = 0; i < products; ++i) sum[i] = fmadd(load(from[i] + row + w, n), g, sum[i]);
    });
  }
#pragma GCC unroll 16
  for (int i = 0; i < products; ++i) sums[(t + i) * step] += reduce_add(sum[i]);
}

template <class T>
void add_block(const Block<T>& block, int64_t taps, Sum<T>* sums, int64_t step) {
  int64_t t = 0;
  if (taps % 9 == 0)
    for (; t < taps; t += 9) add_products<T, 9>(block, t, sums, step);
  for (; t + 5 <= taps; t += 5) add_products<T, 5>(block, t, sums, step);
  for (; t < taps; ++t) add_products<T, 1>(block, t, sums, step);
}

template <class T>
void row_sums(const DepthwiseSumsArgs& args, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const DepthwiseArgs& a = args.conv;
  const int64_t across = (a.size[2] + a.block[2] - 1) / a.block[2];
  const int64_t down = (a.size[1] + a.block[1] - 1) / a.block[1];
  const int64_t blocks = a.x.batch * a.size[0] * down * across;
  const int64_t taps = a.kernel[0] * a.kernel[1] * a.kernel[2];
  Copies<S> copies(a);
  S* of_plane = copies.weight;  // a product's sum; unused otherwise
  for (int64_t item = begin; item < end; ++item) {
    const int64_t c = item % a.x.channels, part = item / a.x.channels;
    S* to = static_cast<S*>(args.sums) + part * taps * a.w_tap[2] + c;
    for (int64_t t = 0; t < taps * args.planes; ++t) to[t * a.x.channels] = S(0);
    const int64_t last = (part + 1) * args.part < blocks ? (part + 1) * args.part : blocks;
    for (int64_t block = part * args.part; block < last; ++block) {
      const int64_t w = block % across * a.block[2], h = block / across % down * a.block[1];
      const int64_t d = block / across / down % a.size[0], n = block / across / down / a.size[0];
      const int64_t rows = a.size[1] - h < a.block[1] ? a.size[1] - h : a.block[1];
      const int64_t columns = a.size[2] - w < a.block[2] ? a.size[2] - w : a.block[2];
      copies.template load_planes<T>(static_cast<const T*>(a.x.data) + n * a.x.n + c * a.x.c, 0, d,
                                     h, w, rows, columns);
      for (int64_t j = 0; j < args.planes; ++j) {
        const T* g = static_cast<const T*>(args.g.data) + n * args.g.n + c * args.g.c +
                     j * args.g_plane + d * args.g.s[0] + h * args.g.s[1] + w * args.g.s[2];
        for (int64_t t = 0; t < copies.taps; ++t) of_plane[t] = S(0);
        add_block<T>({copies, g, args.g.s[1], args.g.s[2], rows, columns}, copies.taps, of_plane,
                     1);
        for (int64_t t = 0; t < copies.taps; ++t)
          to[copies.tap_of[t] + j * a.x.channels] += of_plane[t];
      }
    }
  }
}

}  // namespace

void depthwise_row_sums(const DepthwiseSumsArgs& a, int64_t begin, int64_t end) {
  visit_real(a.conv.x.dtype, [&](auto t) { row_sums<typename decltype(t)::type>(a, begin, end); });
}

HONED_END_LEVEL
