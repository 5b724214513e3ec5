// Futex-backed waiting.
#include "core/barrier.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace honed {

namespace {

// A pause is about 40 cycles. Alone on the machine the other threads arrive within the longer spin,
// some 25 us. Where other programs want the cores a spinning thread keeps the one it waits for from
// running, and yielding gives away a whole time slice: beside one busy program SmolLM2 decoded 7 tokens
// a second spinning 25 us and then yielding, 25 without yielding, 59 with 2 us. So a spin that was in
// vain halves the next ones, and one that was not lengthens them.
constexpr int kLeastSpins = 100, kMostSpins = 2000;
thread_local int spins = kMostSpins;

long futex(std::atomic<uint32_t>& word, int op, uint32_t value) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), op, value, nullptr, nullptr, 0);
}

}  // namespace

void wait_while_equal(std::atomic<uint32_t>& word, uint32_t old) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) {
      spins = std::min(spins + spins / 8, kMostSpins);
      return;
    }
    __builtin_ia32_pause();
  }
  spins = std::max(spins / 2, kLeastSpins);
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
