// Workers wait for the epoch to change, do their rank, count down. A forked child starts a new
// pool.
#include "core/thread_pool.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "core/barrier.h"

namespace honed {

namespace {

struct Pool {
  std::mutex owner;
  std::atomic<uint32_t> epoch{0};
  std::atomic<uint32_t> running{0};
  int size = 1;  // of the region in progress
  const FunctionRef<void(int)>* body = nullptr;
  std::vector<std::thread> workers;

  void grow(int count) {
    while (int(workers.size()) < count) {
      int rank = int(workers.size()) + 1;
      uint32_t seen = epoch.load();
      workers.emplace_back([this, rank, seen] { work(rank, seen); });
    }
  }

  void work(int rank, uint32_t seen) {
    for (;;) {
      wait_while_equal(epoch, seen);
      seen = epoch.load(std::memory_order_acquire);
      if (rank < size) (*body)(rank);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) wake_all(running);
    }
  }

  void run(int want, const FunctionRef<void(int)>& f) {
    grow(want - 1);
    size = want;
    body = &f;
    // Every worker answers each epoch, so that none can still read size or body in the next one.
    running.store(uint32_t(workers.size()), std::memory_order_relaxed);
    epoch.fetch_add(1, std::memory_order_release);
    wake_all(epoch);
    f(0);
    for (uint32_t left; (left = running.load(std::memory_order_acquire)) != 0;)
      wait_while_equal(running, left);
  }
};

// Never destroyed: workers sleep until the process ends.
std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  Pool* now = pool.load(std::memory_order_acquire);
  if (!now) {
    Pool* made = new Pool;
    if (pool.compare_exchange_strong(now, made)) return *made;
    delete made;  // another thread was first; this one has no workers yet
  }
  return *now;
}

}  // namespace

bool run_on_pool(int size, FunctionRef<void(int)> body) {
  Pool& mine = the_pool();
  std::unique_lock lock(mine.owner, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  mine.run(size, body);
  return true;
}

void forget_pool() { pool.store(nullptr); }

}  // namespace honed
