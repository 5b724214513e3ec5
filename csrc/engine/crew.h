// One team of threads through a whole step: kernels in turn, a barrier after each.
#pragma once
#include <atomic>

#include "core/parallel.h"
#include "cpu/table.h"

namespace honed::engine {

// Shared by the team. Three cursors in turn: one in use, one being reset, one that late threads may
// still read.
struct Cursors {
  struct alignas(64) Cursor {
    std::atomic<int64_t> next{0};
  } cursor[3];
};

// A thread's view of the team during a step. All threads make the same calls in the same order.
class Crew {
 public:
  Crew(const Team& team, Cursors& cursors) : team_(team), cursors_(cursors) {}

  int rank() const { return team_.rank; }
  int size() const { return team_.size; }
  void barrier() const { team_.barrier(); }
  int64_t begin(int64_t n) const { return team_.begin(n); }  // this thread's share of [0, n)
  int64_t end(int64_t n) const { return team_.end(n); }

  // The kernel over [0, items): threads take `grain` items at a time as they become free. Returns
  // when all are done.
  template <class Args>
  void run(cpu::Kernel<Args> kernel, const Args& args, int64_t items, int64_t grain) {
    if (team_.size == 1) {
      kernel(args, 0, items);
      return;
    }
    std::atomic<int64_t>& next = cursors_.cursor[phase_ % 3].next;
    if (team_.rank == 0) cursors_.cursor[(phase_ + 1) % 3].next.store(0, std::memory_order_relaxed);
    for (int64_t begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < items;)
      kernel(args, begin, begin + grain < items ? begin + grain : items);
    ++phase_;
    team_.barrier();
  }

  // About eight pieces a thread: fine enough to even out a disturbed core.
  template <class Args>
  void run(cpu::Kernel<Args> kernel, const Args& args, int64_t items) {
    int64_t grain = items / (8 * team_.size);
    run(kernel, args, items, grain > 0 ? grain : 1);
  }

 private:
  Team team_;
  Cursors& cursors_;
  unsigned phase_ = 0;
};

}  // namespace honed::engine
