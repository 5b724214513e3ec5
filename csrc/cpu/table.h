// One pointer a kernel; one table a CPU level.
#pragma once
#include <cstdint>

namespace honed {

#define HONED_OP(name, Args) struct Args;
#define HONED_KERNEL(name, Args) struct Args;
#include "ops.def"
#undef HONED_OP
#undef HONED_KERNEL

namespace cpu {

// A kernel does the items [begin, end) of its op's parallel axis; threads are its caller's
// business.
template <class Args>
using Kernel = void (*)(const Args& args, int64_t begin, int64_t end);

struct KernelTable {
#define HONED_OP(name, Args) Kernel<Args> name;
#define HONED_KERNEL(name, Args) Kernel<Args> name;
#include "ops.def"
#undef HONED_OP
#undef HONED_KERNEL
};

}  // namespace cpu
}  // namespace honed
