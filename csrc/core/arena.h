// Scratch memory, 64-byte aligned, reused between calls. One arena a thread; a Scratch frees in
// reverse order of taking when it goes out of scope; a thread keeps at most 128 MB that it does not use.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace honed {

class Scratch {
 public:
  explicit Scratch(int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  size_t block_, before_;
};

void* allocate_aligned(
    int64_t bytes);  // 64-byte aligned, huge pages asked for from 4 MiB; throws bad_alloc
void free_aligned(void* data);

// Long-lived memory, 64-byte aligned, from 16 MB slabs of huge pages: the small weights that a
// thread packs lie side by side. A slab is freed when the last piece of it is.
std::shared_ptr<uint8_t[]> allocate_packed(int64_t bytes);

}  // namespace honed
