#include "engine/cache.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/check.h"
#include "ops/_sizes.h"

namespace honed::engine {

void Cache::Free::operator()(char* p) const { free_aligned(p); }

Cache::Cache(const Description& d, int64_t batch, int64_t capacity, DType dtype)
    : layers_(d.num_layers),
      heads_(d.num_kv_heads),
      head_dim_(d.head_dim),
      max_length_(d.max_positions),
      blocks_(ceil_div(d.max_positions, kPage)),
      batch_(batch),
      dtype_(dtype) {
  HONED_CHECK(batch > 0, "Cache: batch is ", batch, ", expected at least 1");
  HONED_CHECK(capacity >= 0 && capacity <= max_length_, "Cache: capacity is ", capacity,
              ", expected 0 to ", max_length_);
  HONED_CHECK(is_float(dtype), "Cache: dtype is ", name_of(dtype),
              ", expected float32, float16 or bfloat16");
  table_.resize(size_t(batch * blocks_));
  reserve(capacity);
}

CacheUse::CacheUse(Cache& cache) : cache_(cache) {
  HONED_CHECK(!cache.busy_.exchange(true),
              "Cache: in use by another call, expected one call at a time");
}

bool Cache::fits(const Description& d) const {
  return layers_ == d.num_layers && heads_ == d.num_kv_heads && head_dim_ == d.head_dim &&
         max_length_ <= d.max_positions;
}

int64_t Cache::bytes() const { return int64_t(uses_.size()) * page_bytes(); }

char* Cache::block(int64_t index) const {
  return data_.get() + index * heads_ * head_stride() * size_of(dtype_);
}

void Cache::check_length(int64_t length) const {
  HONED_CHECK(length <= max_length_, "Cache: ", length, " tokens, expected at most ", max_length_,
              " (the model's positions)");
}

void Cache::grow(int64_t pages) {
  int64_t now = int64_t(uses_.size());
  if (pages <= now && data_) return;
  std::unique_ptr<char[], Free> grown(
      static_cast<char*>(allocate_aligned(std::max<int64_t>(pages, 1) * page_bytes())));
  uses_.reserve(size_t(pages));
  free_.reserve(size_t(pages));
  for (int64_t page = 0; page < now; ++page)
    if (uses_[size_t(page)] > 0)
      std::memcpy(grown.get() + page * page_bytes(), data_.get() + page * page_bytes(),
                  size_t(page_bytes()));
  data_ = std::move(grown);
  uses_.resize(size_t(pages), 0);
  // Taken from the end: a new cache's pages lie in the order of the tokens.
  std::vector<int32_t> fresh(size_t(pages - now));
  for (size_t i = 0; i < fresh.size(); ++i) fresh[i] = int32_t(pages - 1 - int64_t(i));
  free_.insert(free_.begin(), fresh.begin(), fresh.end());
}

int32_t Cache::take() {
  int32_t page = free_.back();
  free_.pop_back();
  uses_[size_t(page)] = 1;
  return page;
}

void Cache::release(int32_t page) {
  if (--uses_[size_t(page)] == 0) free_.push_back(page);
}

void Cache::reserve(int64_t length) {
  check_length(length);
  grow(batch_ * ceil_div(length, kPage));
}

void Cache::copy(int32_t from, int32_t to, int64_t tokens) {
  int64_t size = tokens * head_dim_ * size_of(dtype_), step = head_stride() * size_of(dtype_);
  const char* source = data_.get() + from * page_bytes();
  char* target = data_.get() + to * page_bytes();
  for (int64_t i = 0; i < 2 * layers_ * heads_; ++i)
    std::memcpy(target + i * step, source + i * step, size_t(size));
}

void Cache::open(int64_t count) {
  int64_t end = length_ + count, wanted = ceil_div(end, kPage);
  check_length(end);
  // The page that is being filled is at most copied; those after it are new.
  int64_t filling = length_ % kPage > 0 ? length_ / kPage : -1;
  int64_t needed = batch_ * std::max<int64_t>(0, wanted - held_);
  for (int64_t b = 0; filling >= 0 && b < batch_; ++b)
    needed += uses_[size_t(table_[size_t(b * blocks_ + filling)])] > 1;
  if (needed > int64_t(free_.size()))
    grow(std::max(int64_t(uses_.size()) + needed - int64_t(free_.size()),
                  std::min(2 * int64_t(uses_.size()), batch_ * blocks_)));
  for (int64_t b = 0; b < batch_; ++b) {
    int32_t* row = table_.data() + b * blocks_;
    if (filling >= 0 && uses_[size_t(row[filling])] > 1) {
      int32_t own = take();
      copy(row[filling], own, length_ % kPage);
      release(row[filling]);
      row[filling] = own;
    }
    for (int64_t i = held_; i < wanted; ++i) row[i] = take();
  }
  held_ = std::max(held_, wanted);
}

void Cache::crop(int64_t length) {
  HONED_CHECK(length >= 0 && length <= length_, "Cache: crop to ", length, ", expected 0 to ",
              length_);
  int64_t kept = ceil_div(length, kPage);
  for (int64_t b = batch_ - 1; b >= 0; --b)
    for (int64_t i = held_ - 1; i >= kept; --i) release(table_[size_t(b * blocks_ + i)]);
  held_ = std::min(held_, kept);
  length_ = length;
}

void Cache::reorder(const int64_t* rows, int64_t count) {
  HONED_CHECK(count > 0, "Cache: reorder takes no rows, expected at least one");
  bool same = count == batch_;
  for (int64_t b = 0; b < count; ++b) {
    HONED_CHECK(rows[b] >= 0 && rows[b] < batch_, "Cache: reorder takes row ", rows[b],
                ", expected 0 to ", batch_ - 1);
    same = same && rows[b] == b;
  }
  if (same) return;
  crop(length_);  // pages opened by a call that failed
  std::vector<int32_t> next(size_t(count * blocks_));
  for (int64_t b = 0; b < count; ++b)
    for (int64_t i = 0; i < held_; ++i) {
      int32_t page = table_[size_t(rows[b] * blocks_ + i)];
      next[size_t(b * blocks_ + i)] = page;
      ++uses_[size_t(page)];
    }
  for (int64_t b = 0; b < batch_; ++b)
    for (int64_t i = 0; i < held_; ++i) release(table_[size_t(b * blocks_ + i)]);
  table_ = std::move(next);
  batch_ = count;
}

}  // namespace honed::engine
