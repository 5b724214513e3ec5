// Compiled once a level: the level's table. A kernel that the level does not compile is a weak symbol
// without a definition: null here, and the dispatcher takes it from the level below.
#include "cpu/table.h"

namespace honed::cpu::HONED_LEVEL {

#define HONED_OP(name, Args) [[gnu::weak]] void name(const Args& args, int64_t begin, int64_t end);
#define HONED_KERNEL(name, Args) \
  [[gnu::weak]] void name(const Args& args, int64_t begin, int64_t end);
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
