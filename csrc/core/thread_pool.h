// The pool for processes without an OpenMP runtime.
#pragma once
#include "core/parallel.h"

namespace honed {

// Runs body(rank) for rank 1..size-1 on pool threads and rank 0 on the caller. Returns false,
// having done nothing, when another thread has the pool.
bool run_on_pool(int size, FunctionRef<void(int)> body);

// In a forked child: the workers were not copied, the next region starts new ones.
void forget_pool();

}  // namespace honed
