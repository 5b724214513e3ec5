// The gradient of attention's bias: that of the scores, summed over what the bias broadcasts.
#include "cpu/kernels/attention_backward_block.h"
#include "ops/_attention_backward.h"

HONED_BEGIN_LEVEL

namespace {

// Elements of the bias that one item sums: of one batch and head, or of all that share them, and of
// one block of queries, or of all.
class BiasItem {
 public:
  BiasItem(const AttentionBackwardArgs& args, const AttentionArgs& single)
      : args_(args), single_(single), block_(args, args.scratch) {
    key_ = args.scratch + args.block_floats;
    value_ = key_ + kMaxRows * padded(single.head_dim);
  }

  void run(int64_t item) {
    const int64_t* stride = args_.dbias_stride;
    const int64_t blocks = (single_.q_len + kMaxRows - 1) / kMaxRows;
    const int64_t own_blocks = stride[2] ? blocks : 1, own_heads = stride[1] ? single_.heads : 1;
    Range t = range(item % own_blocks, own_blocks, blocks), h, b;
    item /= own_blocks;
    h = range(item % own_heads, own_heads, single_.heads);
    item /= own_heads;
    b = range(item, stride[0] ? single_.batch : 1, single_.batch);
    for (int64_t i = b.begin; i < b.end; ++i) {
      Span span = span_of(single_, i);
      for (int64_t j = h.begin; j < h.end; ++j)
        for (int64_t row = t.begin * kMaxRows; row < smaller(t.end * kMaxRows, span.q_len);
             row += kMaxRows)
          rows(span, j, row);
    }
  }

 private:
  struct Range {
    int64_t begin, end;
  };
  static Range range(int64_t at, int64_t own, int64_t all) {
    return own == 1 ? Range{0, all} : Range{at, at + 1};
  }

  void rows(const Span& span, int64_t h, int64_t row) {
    QueryRows rows(single_, span, h, row, kMaxRows);
    const int64_t g = h / (args_.forward.heads / args_.forward.kv_heads);
    const int64_t* stride = args_.dbias_stride;
    float* to =
        static_cast<float*>(args_.dbias) + span.b * stride[0] + h * stride[1] + row * stride[2];
    block_.take(rows);
    int64_t begin = rows.first_seen(0) / kMaxRows * kMaxRows, end = rows.end_seen(rows.vecs);
    for (int64_t k0 = begin; k0 < end; k0 += kMaxRows) {
      int n = int(smaller(kMaxRows, end - k0));
      if (rows.hidden(k0, n)) continue;
      FloatRows key = float_rows(args_.forward, span, g, k0, n, Part::keys, key_);
      FloatRows value = float_rows(args_.forward, span, g, k0, n, Part::values, value_);
      block_.differentiate(rows, key, value, k0, n, 0, rows.vecs, false);
      float* at = to + k0 * stride[3];
      if (!stride[2])
        add_columns(n, rows.vecs, at);
      else if (!stride[3])
        add_rows(n, rows, at);
      else
        add_all(n, rows, at);
    }
  }

  // Sums over the rows, of each key or of all; dscore of rows after the last is 0.
  void add_columns(int n, int vecs, float* to) {
    for (int k = 0; k < n; ++k) {
      vf sum = load(block_.dscore + k * kMaxRows);
      for (int v = 1; v < vecs; ++v) sum = sum + load(block_.dscore + k * kMaxRows + v * kLanes);
      to[k * args_.dbias_stride[3]] += reduce_add(sum);
    }
  }

  // Sums over the keys.
  void add_rows(int n, const QueryRows& rows, float* to) {
    for (int v = 0; v < rows.vecs; ++v) {
      alignas(64) float lanes[kLanes];
      vf sum = zero();
      for (int k = 0; k < n; ++k) sum = sum + load(block_.dscore + k * kMaxRows + v * kLanes);
      store(lanes, sum);
      for (int i = 0; i < smaller(kLanes, rows.count - v * kLanes); ++i)
        to[(v * kLanes + i) * args_.dbias_stride[2]] += lanes[i];
    }
  }

  void add_all(int n, const QueryRows& rows, float* to) {
    for (int v = 0; v < rows.vecs; ++v)
      for (int k = 0; k < n; k += kLanes) {
        int count = int(smaller(kLanes, n - k));
        vf square[kLanes];
        for (int i = 0; i < kLanes; ++i)
          square[i] = i < count ? load(block_.dscore + (k + i) * kMaxRows + v * kLanes) : zero();
        transpose(square);
        for (int i = 0; i < smaller(kLanes, rows.count - v * kLanes); ++i) {
          float* row = to + (v * kLanes + i) * args_.dbias_stride[2] + k;
          store(row, load(row, count) + square[i], count);
        }
      }
  }

  const AttentionBackwardArgs& args_;
  const AttentionArgs& single_;  // every head its own key head: a block's rows are of one head
  BackwardBlock block_;
  float *key_, *value_;  // converted
};

}  // namespace

// Items: the bias's batches, heads and blocks of queries, 1 of what it broadcasts.
void attention_backward_bias(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  AttentionArgs single = args.forward;
  single.kv_heads = single.heads;
  BiasItem item(args, single);
  for (int64_t i = begin; i < end; ++i) item.run(i);
}

HONED_END_LEVEL
