// Compiled once a level: the level's table.
#include "cpu/table.h"

namespace honed::cpu::HONED_LEVEL {

#define HONED_OP(name, Args) void name(const Args& args, int64_t begin, int64_t end);
#define HONED_KERNEL(name, Args) void name(const Args& args, int64_t begin, int64_t end);
#include "ops.def"
#undef HONED_OP
#undef HONED_KERNEL

extern const KernelTable table;
const KernelTable table = {
#define HONED_OP(name, Args) name,
#define HONED_KERNEL(name, Args) name,
#include "ops.def"
#undef HONED_OP
#undef HONED_KERNEL
};

}  // namespace honed::cpu::HONED_LEVEL
