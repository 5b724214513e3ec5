// Keys and values of all layers: one block, (layer, key or value, B, Hkv, capacity, D).
#pragma once
#include <atomic>
#include <memory>

#include "engine/model.h"

namespace honed::engine {

class Cache {
 public:
  Cache(const Description& description, int64_t batch, int64_t capacity, DType dtype);

  int64_t batch() const { return batch_; }
  int64_t length() const { return length_; }  // tokens held, the same for every row
  int64_t capacity() const { return capacity_; }
  int64_t max_length() const { return max_length_; }
  DType dtype() const { return dtype_; }
  int64_t bytes() const;
  bool fits(const Description& description) const;  // made for a model of these sizes

  char* keys(int64_t layer) const { return block(2 * layer); }
  char* values(int64_t layer) const { return block(2 * layer + 1); }
  int64_t head_stride() const { return capacity_ * head_dim_; }  // elements
  int64_t row_stride() const { return heads_ * head_stride(); }

  void reserve(int64_t length);  // doubles up to max_length; throws ValueError beyond it
  void append(int64_t count) { length_ += count; }
  void crop(int64_t length);
  void reorder(const int64_t* rows,
               int64_t count);  // row b becomes a copy of rows[b]; batch = count

 private:
  friend class CacheUse;
  struct Free {
    void operator()(char* p) const;
  };
  char* block(int64_t index) const;
  std::unique_ptr<char[], Free> allocate(int64_t batch, int64_t capacity) const;

  int64_t layers_, heads_, head_dim_, max_length_, batch_, capacity_ = 0, length_ = 0;
  DType dtype_;
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
