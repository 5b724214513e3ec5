// Which level runs: detected once, forced by HONED_ISA, changed by tests through set_level.
#pragma once
#include <string>
#include <vector>

#include "core/parallel.h"
#include "cpu/table.h"

namespace honed::cpu {

const KernelTable& kernels();  // of the chosen level

const char* level();                         // its name
std::vector<std::string> compiled_levels();  // in this binary
std::vector<std::string> usable_levels();    // of those, what this CPU runs
void set_level(const std::string& name);     // empty: the best usable one; throws ValueError

// Runs a kernel over [0, n) on the threads, in pieces of at least `grain` items.
template <class Args>
void run(Kernel<Args> kernel, const Args& args, int64_t n, int64_t grain) {
  parallel_for(n, grain, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

// Items a thread should get at least, when one item costs about `operations` scalar operations.
int64_t grain_for(int64_t operations);
int threads_for(int64_t operations);  // that so many scalar operations are worth

}  // namespace honed::cpu
