// Keys and values of all layers, in pages of kPage tokens that rows share where they began alike:
// a page is (layer, key or value, Hkv, kPage, D), a row a list of pages. A page that several rows
// have is copied when one of them writes into it; reordering rows copies no keys.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "engine/model.h"

namespace honed::engine {

class Cache {
 public:
  Cache(const Description& description, int64_t batch, int64_t capacity, DType dtype);

  // The keys that attention_decode takes at once: with 64, which split them, a step at 1000 tokens
  // was 4 % slower (Zen 4), and beams, which copy half a page where they fork, no faster.
  static constexpr int64_t kPage = 128;

  int64_t batch() const { return batch_; }
  int64_t length() const { return length_; }  // tokens held, the same for every row
  int64_t capacity() const { return int64_t(uses_.size()) * kPage / batch_; }  // tokens a row
  int64_t max_length() const { return max_length_; }
  DType dtype() const { return dtype_; }
  int64_t bytes() const;
  bool fits(const Description& description) const;  // made for a model of these sizes

  // Token s of row b, head h: keys(layer) + table()[b * table_stride() + s / kPage] * page_stride()
  // + h * head_stride() + s % kPage * D; strides count elements.
  char* keys(int64_t layer) const { return block(2 * layer); }
  char* values(int64_t layer) const { return block(2 * layer + 1); }
  const int32_t* table() const { return table_.data(); }
  int64_t table_stride() const { return blocks_; }
  int64_t head_stride() const { return kPage * head_dim_; }
  int64_t page_stride() const { return 2 * layers_ * heads_ * head_stride(); }

  void reserve(int64_t length);  // memory for that many tokens a row; throws ValueError beyond
                                 // max_length
  void open(int64_t count);      // makes the next count tokens of every row its own, to be written
  void append(int64_t count) { length_ += count; }  // those that were opened are held now
  void crop(int64_t length);
  void reorder(const int64_t* rows, int64_t count);  // row b goes on from rows[b]; batch = count

 private:
  friend class CacheUse;
  struct Free {
    void operator()(char* p) const;
  };
  char* block(int64_t index) const;
  int64_t page_bytes() const { return page_stride() * size_of(dtype_); }
  void check_length(int64_t length) const;
  void grow(int64_t pages);  // to hold at least so many
  int32_t take();
  void release(int32_t page);
  void copy(int32_t from, int32_t to, int64_t tokens);

  int64_t layers_, heads_, head_dim_, max_length_, blocks_, batch_, length_ = 0;
  int64_t held_ = 0;  // pages a row has, those opened included
  DType dtype_;
  std::vector<int32_t> table_;  // (batch, blocks_): the first held_ of a row count
  std::vector<int32_t> uses_;   // of each page, by rows
  std::vector<int32_t> free_;
  std::unique_ptr<char[], Free> data_;
  std::atomic<bool> busy_{false};
};

// Holds a cache for one call: a second call on it meanwhile, from another thread or from a callback,
// is refused.
class CacheUse {
 public:
  explicit CacheUse(Cache& cache);
  ~CacheUse() { cache_.busy_ = false; }
  CacheUse(const CacheUse&) = delete;
  CacheUse& operator=(const CacheUse&) = delete;

 private:
  Cache& cache_;
};

}  // namespace honed::engine
