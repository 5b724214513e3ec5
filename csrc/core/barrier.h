// Waiting for other threads: spin for a moment, then sleep in the kernel.
#pragma once
#include <atomic>
#include <cstdint>

namespace honed {

// Blocks until word != old.
void wait_while_equal(std::atomic<uint32_t>& word, uint32_t old);
void wake_all(std::atomic<uint32_t>& word);

class Barrier {
 public:
  void arrive_and_wait(int size);

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

}  // namespace honed
