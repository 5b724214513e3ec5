// Workers wait for the epoch to change, do their rank, count down.
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
  Signal epoch, running;
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
      epoch.wait_while(seen);
      seen = epoch.load();
      if (rank < size) (*body)(rank);
      running.count_down();
    }
  }

  void run(int want, const FunctionRef<void(int)>& f) {
    grow(want - 1);
    size = want;
    body = &f;
    // Every worker answers each epoch, so that none can still read size or body in the next one.
    running.store(uint32_t(workers.size()));
    epoch.add(1);
    f(0);
    for (uint32_t left; (left = running.load()) != 0;) running.wait_while(left);
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
