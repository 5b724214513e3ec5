// Huge pages under large new tensors.
#pragma once
#include <sys/mman.h>

#include <cstdint>

namespace honed::bindings {

// One page fault instead of 512, where the memory is new: from 4 MiB on.
inline void ask_huge_pages(void* data, int64_t bytes) {
  constexpr uintptr_t kPage = 4096;
  if (bytes < int64_t{4} << 20) return;
  uintptr_t at = reinterpret_cast<uintptr_t>(data);
  uintptr_t first = (at + kPage - 1) / kPage * kPage,
            last = (at + uintptr_t(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

}  // namespace honed::bindings
