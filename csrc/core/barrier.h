// Waiting for other threads: spin for a moment, then sleep in the kernel.
#pragma once
#include <atomic>
#include <cstdint>

namespace honed {

// A number that threads wait on.
class Signal {
 public:
  uint32_t load() const { return value_.load(std::memory_order_acquire); }
  void store(uint32_t value) { value_.store(value, std::memory_order_release); }
  // Each returns the new value and wakes those who sleep.
  uint32_t add(uint32_t amount);
  // Takes one off; wakes only at zero.
  void count_down();
  void wait_while(uint32_t value);  // until it is another

 private:
  void wake();
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};  // spares the waker a system call where nobody sleeps
};

class Barrier {
 public:
  void arrive_and_wait(int size);

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) Signal phase_;
};

}  // namespace honed
