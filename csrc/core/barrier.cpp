// Futex-backed waiting.
#include "core/barrier.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace honed {

namespace {

// A pause is about 40 cycles: 2000 of them are some 25 us, longer than any gap between two kernels
// of a decode step, shorter than a scheduler tick.
constexpr int kSpins = 2000;
constexpr int kYields = 50;

long futex(std::atomic<uint32_t>& word, int op, uint32_t value) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), op, value, nullptr, nullptr, 0);
}

}  // namespace

void wait_while_equal(std::atomic<uint32_t>& word, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    __builtin_ia32_pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    sched_yield();
  }
  while (word.load(std::memory_order_acquire) == old) futex(word, FUTEX_WAIT_PRIVATE, old);
}

void wake_all(std::atomic<uint32_t>& word) { futex(word, FUTEX_WAKE_PRIVATE, INT32_MAX); }

void Barrier::arrive_and_wait(int size) {
  uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    wake_all(phase_);
  } else {
    wait_while_equal(phase_, phase);
  }
}

}  // namespace honed
