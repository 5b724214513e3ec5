// Detection and choice. Compiled with baseline flags: it may run on any x86-64.
#include "cpu/dispatch.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>

#include "core/check.h"
#include "core/env.h"

namespace honed::cpu {

// Levels that the compiler lacks have no table.
#define HONED_LEVEL_ROW(name)     \
  namespace name {                \
  extern const KernelTable table; \
  }
#include "cpu/levels.def"
#undef HONED_LEVEL_ROW

namespace {

struct Level {
  const char* name;
  KernelTable table;
  bool (*usable)();
};

// A level's own kernels, and those of the level below where it has none.
KernelTable above(const KernelTable& below, KernelTable own) {
#define HONED_OP(name, Args) \
  if (!own.name) own.name = below.name;
#define HONED_KERNEL(name, Args) HONED_OP(name, Args)
#include "ops.def"
#undef HONED_OP
#undef HONED_KERNEL
  return own;
}

// For features whose names not every compiler knows.
struct Registers {
  unsigned a, b, c, d;
};
Registers cpuid(unsigned leaf, unsigned part = 0) {
  Registers r{leaf, 0, part, 0};
  __asm__("cpuid" : "+a"(r.a), "=b"(r.b), "+c"(r.c), "=d"(r.d));
  return r;
}

bool usable_baseline() { return true; }
bool usable_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2") && (cpuid(1).c >> 29 & 1u);  // F16C
}
bool usable_avx2_vnni() { return usable_avx2() && (cpuid(7, 1).a >> 4 & 1u); }
bool usable_avx512() {
  return usable_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool usable_avx512_vnni() { return usable_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool usable_avx512_bf16() { return usable_avx512_vnni() && (cpuid(7, 1).a >> 5 & 1u); }
bool usable_avx512_fp16() { return usable_avx512_bf16() && (cpuid(7).d >> 23 & 1u); }
// Linux lets a process use tile registers only after it asked: a signal then saves 8 KB more.
bool ask_for_tiles() {
#ifdef SYS_arch_prctl
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
bool usable_avx512_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25,
                     kAll = kBf16 | kTile | kInt8;
  return usable_avx512_fp16() && (cpuid(7).d & kAll) == kAll && ask_for_tiles();
}

const std::vector<Level>& levels() {
  static const std::vector<Level> all = [] {
    std::vector<Level> found = {
#ifdef HONED_WITH_baseline
        {"baseline", baseline::table, usable_baseline},
#endif
#ifdef HONED_WITH_avx2
        {"avx2", avx2::table, usable_avx2},
#endif
#ifdef HONED_WITH_avx2_vnni
        {"avx2_vnni", avx2_vnni::table, usable_avx2_vnni},
#endif
#ifdef HONED_WITH_avx512
        {"avx512", avx512::table, usable_avx512},
#endif
#ifdef HONED_WITH_avx512_vnni
        {"avx512_vnni", avx512_vnni::table, usable_avx512_vnni},
#endif
#ifdef HONED_WITH_avx512_bf16
        {"avx512_bf16", avx512_bf16::table, usable_avx512_bf16},
#endif
#ifdef HONED_WITH_avx512_fp16
        {"avx512_fp16", avx512_fp16::table, usable_avx512_fp16},
#endif
#ifdef HONED_WITH_avx512_amx
        {"avx512_amx", avx512_amx::table, usable_avx512_amx},
#endif
    };
    for (size_t i = 1; i < found.size(); ++i)
      found[i].table = above(found[i - 1].table, found[i].table);
    return found;
  }();
  return all;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Level* find(const std::string& name) {
  const Level* best = nullptr;
  for (const Level& each : levels())
    if ((name.empty() || name == each.name) && each.usable()) best = &each;
  HONED_CHECK(
      best, "HONED_ISA: '", name,
      "' is not a level that this build and CPU have, expected one of: ", join(usable_levels()));
  return best;
}

std::atomic<const Level*> chosen{nullptr};

const Level& current() {
  const Level* now = chosen.load(std::memory_order_acquire);
  if (!now) {
    now = find(env::isa());
    chosen.store(now, std::memory_order_release);
  }
  return *now;
}

}  // namespace

const KernelTable& kernels() { return current().table; }
const char* level() { return current().name; }
void set_level(const std::string& name) { chosen.store(find(name), std::memory_order_release); }

std::vector<std::string> compiled_levels() {
  std::vector<std::string> names;
  for (const Level& each : levels()) names.push_back(each.name);
  return names;
}

std::vector<std::string> usable_levels() {
  std::vector<std::string> names;
  for (const Level& each : levels())
    if (each.usable()) names.push_back(each.name);
  return names;
}

// Handing a piece to another thread costs about 2 us, some 16 000 scalar operations.
constexpr int64_t kWorthAThread = 16384;

int64_t grain_for(int64_t operations) {
  return std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(operations, 1));
}

int threads_for(int64_t operations) {
  return int(std::clamp<int64_t>(operations / kWorthAThread, 1, num_threads()));
}

}  // namespace honed::cpu
