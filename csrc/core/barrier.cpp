// Futex-backed waiting.
#include "core/barrier.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

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

uint32_t Signal::add(uint32_t amount) {
  uint32_t now = value_.fetch_add(amount) + amount;
  wake();
  return now;
}

void Signal::count_down() {
  if (value_.fetch_sub(1) == 1) wake();
}

// A sleeper counts itself before it looks at the value a last time, a waker changes the value before it
// looks at the count (all in one order): one of the two sees the other.
void Signal::wake() {
  if (sleepers_.load() != 0) futex(value_, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void Signal::wait_while(uint32_t value) {
  for (int i = 0; i < spins; ++i) {
    if (load() != value) {
      spins = std::min(spins + spins / 8, kMostSpins);
      return;
    }
    __builtin_ia32_pause();
  }
  spins = std::max(spins / 2, kLeastSpins);
  sleepers_.fetch_add(1);
  while (value_.load() == value) futex(value_, FUTEX_WAIT_PRIVATE, value);
  sleepers_.fetch_sub(1);
}

void Barrier::arrive_and_wait(int size) {
  uint32_t phase = phase_.load();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.add(1);
  } else {
    phase_.wait_while(phase);
  }
}

}  // namespace honed
