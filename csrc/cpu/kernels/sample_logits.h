// One row of logits, read by blocks: edited, masked, and the largest of every block.
#pragma once
#include "cpu/kernels/sample_select.h"
#include "cpu/simd/transpose.h"
#include "ops/sample.h"

HONED_BEGIN_LEVEL
namespace {

template <class T>
class Logits {
 public:
  // block_max and first_edit hold a value a block.
  Logits(const T* data, const SampleRow& row, int64_t vocab, float* block_max, int32_t* first_edit)
      : data_(data),
        row_(row),
        vocab_(vocab),
        blocks_((vocab + kBlock - 1) / kBlock),
        block_max_(block_max),
        first_edit_(first_edit) {}

  int64_t vocab() const { return vocab_; }
  int64_t blocks() const { return blocks_; }
  float largest() const { return largest_; }
  float block_max(int64_t b) const { return block_max_[b]; }
  const float* block_maxima() const { return block_max_; }
  bool has_nan() const { return nan_; }
  bool as_given() const { return row_.edit_count == 0 && !row_.allowed; }

  // Reads every logit that may be chosen once.
  void survey() {
    if (row_.edit_count > 0) {
      for (int64_t b = 0; b < blocks_; ++b) first_edit_[b] = -1;
      for (int64_t e = row_.edit_count - 1; e >= 0; --e)
        first_edit_[row_.edits[e].token / kBlock] = int32_t(e);
    }
    bool nan = row_.allowed ? survey_allowed() : survey_all();
    if (row_.edit_count > 0)
      for (int64_t e = 0; e < row_.edit_count; ++e) {
        int64_t b = row_.edits[e].token / kBlock;
        if (first_edit_[b] == e) nan = survey_block(b) || nan;
      }
    for (int64_t b = blocks_; b < padded(blocks_); ++b) block_max_[b] = -kInfinity;
    vf top = set1(-kInfinity);
    for (int64_t b = 0; b < padded(blocks_); b += kLanes) top = vmax(load(block_max_ + b), top);
    largest_ = reduce_max(top);
    nan_ = nan && first_nan() >= 0;
  }

  // The logits of a block; -infinity beyond the vocabulary.
  HONED_INLINE void block(int64_t b, float* y) const {
    int64_t at = b * kBlock;
    for (int i = 0; i < kBlock; i += kLanes) {
      int64_t left = vocab_ - at - i;
      int n = left >= kLanes ? kLanes : left > 0 ? int(left) : 0;
      store(y + i, keep_first(load(data_ + (n ? at + i : 0), n), n, set1(-kInfinity)));
    }
    if (row_.edit_count > 0 && first_edit_[b] >= 0)
      for (int64_t e = first_edit_[b]; e < row_.edit_count; ++e) {
        int64_t place = row_.edits[e].token - at;
        if (place >= kBlock) break;
        y[place] = row_.edits[e].logit;
      }
    if (row_.allowed && row_.allowed[b] != ~0u)
      for (int i = 0; i < kBlock; ++i) y[i] = row_.allowed[b] >> i & 1 ? y[i] : -kInfinity;
  }

  float logit(int64_t id) const {
    alignas(64) float y[kBlock];
    block(id / kBlock, y);
    return y[id % kBlock];
  }

  // f(from, count) for the logits of the blocks [b, end), in order, where they lie in memory if they
  // are as given; counts are multiples of kBlock.
  template <class F>
  HONED_INLINE void stretches(int64_t b, int64_t end, F&& f) const {
    alignas(64) float y[kBlock];
    int64_t whole = row_.allowed ? 0 : vocab_ / kBlock;
    whole = whole < end ? whole : end;
    auto edited = [&](int64_t at) { return row_.edit_count > 0 && first_edit_[at] >= 0; };
    while (b < end) {
      int64_t from = b;
      while (b < whole && !edited(b)) ++b;
      if (from < b) f(data_ + from * kBlock, (b - from) * kBlock);
      for (; b < end && (b >= whole || edited(b)); ++b) {
        block(b, y);
        f(y, kBlock);
      }
    }
  }

  int64_t first_nan() const {
    return first([](float y) { return y != y; });
  }
  // The first for which it holds, -1 where there is none.
  template <class F>
  int64_t first(F&& holds, float at_least = -kInfinity) const {
    alignas(64) float y[kBlock];
    for (int64_t b = 0; b < blocks_; ++b) {
      if (block_max_[b] < at_least) continue;
      block(b, y);
      for (int i = 0; i < kBlock; ++i)
        if (holds(y[i])) return b * kBlock + i;
    }
    return -1;
  }

 private:
  static bool any_nan(vf v) {
    float sum = reduce_add(v);
    return sum != sum;
  }

  bool survey_block(int64_t b) {
    alignas(64) float y[kBlock];
    block(b, y);
    vf top = set1(-kInfinity), nan = zero();
    for (int i = 0; i < kBlock; i += kLanes) {
      vf v = load(y + i);
      top = vmax(v, top);
      nan = select_nan(v, nan);
    }
    block_max_[b] = reduce_max(top);
    return any_nan(nan);
  }

  bool survey_allowed() {
    bool nan = false;
    for (int64_t b = 0; b < blocks_; ++b) {
      if (row_.allowed[b])
        nan = survey_block(b) || nan;
      else
        block_max_[b] = -kInfinity;
    }
    return nan;
  }

  // As many blocks at a time as a vector has lanes, whose vectors of maxima are then turned.
  bool survey_all() {
    vf nan = zero(), low = set1(-kInfinity);
    int64_t whole = vocab_ / kBlock, b = 0;
    for (; b + kLanes <= whole; b += kLanes) {
      vf top[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        const T* from = data_ + (b + r) * kBlock;
        top[r] = low;
        for (int i = 0; i < kBlock; i += kLanes) {
          vf v = load(from + i);
          top[r] = vmax(v, top[r]);
          nan = select_nan(v, nan);
        }
      }
      transpose(top);
      for (int step = kLanes / 2; step > 0; step /= 2)
        for (int r = 0; r < step; ++r) top[r] = vmax(top[r], top[r + step]);
      store(block_max_ + b, top[0]);
    }
    bool found = any_nan(nan);
    for (; b < blocks_; ++b) found = survey_block(b) || found;
    return found;
  }

  const T* data_;
  const SampleRow& row_;
  int64_t vocab_, blocks_;
  float* block_max_;
  int32_t* first_edit_;
  float largest_ = -kInfinity;
  bool nan_ = false;
};

}  // namespace
HONED_END_LEVEL
