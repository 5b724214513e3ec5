// Growing, cropping and reordering copy only the positions that are held.
#include "engine/cache.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/check.h"

namespace honed::engine {

namespace {
constexpr int64_t kStep = 64;  // capacities are multiples of it
}

void Cache::Free::operator()(char* p) const { free_aligned(p); }

Cache::Cache(const Description& d, int64_t batch, int64_t capacity, DType dtype)
    : layers_(d.num_layers),
      heads_(d.num_kv_heads),
      head_dim_(d.head_dim),
      max_length_(d.max_positions),
      batch_(batch),
      dtype_(dtype) {
  HONED_CHECK(batch > 0, "Cache: batch is ", batch, ", expected at least 1");
  HONED_CHECK(capacity >= 0 && capacity <= max_length_, "Cache: capacity is ", capacity,
              ", expected 0 to ", max_length_);
  HONED_CHECK(is_float(dtype), "Cache: dtype is ", name_of(dtype),
              ", expected float32, float16 or bfloat16");
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

int64_t Cache::bytes() const { return 2 * layers_ * batch_ * row_stride() * size_of(dtype_); }

char* Cache::block(int64_t index) const {
  return data_.get() + index * batch_ * row_stride() * size_of(dtype_);
}

std::unique_ptr<char[], Cache::Free> Cache::allocate(int64_t batch, int64_t capacity) const {
  int64_t size = 2 * layers_ * batch * heads_ * capacity * head_dim_ * size_of(dtype_);
  return std::unique_ptr<char[], Free>(static_cast<char*>(allocate_aligned(size)));
}

void Cache::reserve(int64_t length) {
  HONED_CHECK(length <= max_length_, "Cache: ", length, " tokens, expected at most ", max_length_,
              " (the model's positions)");
  if (length <= capacity_ && data_) return;
  int64_t wanted = std::max(length, std::min(2 * capacity_, max_length_));
  wanted = (std::max<int64_t>(wanted, 1) + kStep - 1) / kStep * kStep;
  auto grown = allocate(batch_, wanted);
  int64_t item = size_of(dtype_), from = capacity_ * head_dim_ * item,
          to = wanted * head_dim_ * item;
  for (int64_t i = 0; data_ && i < 2 * layers_ * batch_ * heads_; ++i)
    std::memcpy(grown.get() + i * to, data_.get() + i * from, size_t(length_ * head_dim_ * item));
  data_ = std::move(grown);
  capacity_ = wanted;
}

void Cache::crop(int64_t length) {
  HONED_CHECK(length >= 0 && length <= length_, "Cache: crop to ", length, ", expected 0 to ",
              length_);
  length_ = length;
}

void Cache::reorder(const int64_t* rows, int64_t count) {
  HONED_CHECK(count > 0, "Cache: reorder takes no rows, expected at least one");
  for (int64_t b = 0; b < count; ++b)
    HONED_CHECK(rows[b] >= 0 && rows[b] < batch_, "Cache: reorder takes row ", rows[b],
                ", expected 0 to ", batch_ - 1);
  auto next = allocate(count, capacity_);
  int64_t item = size_of(dtype_), head = head_stride() * item;
  for (int64_t i = 0; i < 2 * layers_; ++i)
    for (int64_t b = 0; b < count; ++b)
      for (int64_t h = 0; h < heads_; ++h)
        std::memcpy(next.get() + ((i * count + b) * heads_ + h) * head,
                    data_.get() + ((i * batch_ + rows[b]) * heads_ + h) * head,
                    size_t(length_ * head_dim_ * item));
  data_ = std::move(next);
  batch_ = count;
}

}  // namespace honed::engine
