// Regions on torch's OpenMP team or on our own pool.
#include "core/parallel.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>

#include "core/barrier.h"
#include "core/env.h"
#include "core/thread_pool.h"

namespace honed {

namespace {

// The entry points that GNU's and LLVM's runtimes share.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*max_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
  std::string file;
};

OpenMP* openmp = nullptr;
std::atomic<int> wanted{-1};  // -1: HONED_NUM_THREADS not read yet; 0: follow torch
std::atomic<int> regions{0};  // in progress, over all Python threads
thread_local bool inside = false;

// A region that is held open: rank 0 gives out jobs, the others wait for the next one.
struct Held {
  int size;
  Barrier turn;                                   // before a job and after it
  FunctionRef<void(const Team&)>* job = nullptr;  // nullptr: the region ends
  Team team{};                                    // of the job

  void run(int team_size, FunctionRef<void(const Team&)> body);
  void serve(int rank, int count);
};
thread_local Held* held = nullptr;

struct Inside {
  Inside() { inside = true; }
  ~Inside() { inside = false; }
};

void Held::run(int team_size, FunctionRef<void(const Team&)> body) {
  Barrier sync;
  job = &body;
  team = {0, team_size, &sync};
  turn.arrive_and_wait(size);
  std::exception_ptr error;  // the others wait for the end of the job
  try {
    Inside here;
    body(team);
  } catch (...) {
    error = std::current_exception();
  }
  turn.arrive_and_wait(size);
  if (error) std::rethrow_exception(error);
}

void Held::serve(int rank, int count) {
  Inside here;
  for (;;) {
    turn.arrive_and_wait(count);
    if (!job) return;
    if (rank < team.size) (*job)(Team{rank, team.size, team.sync});
    turn.arrive_and_wait(count);
  }
}

int quota_cpus() {  // cgroup v2, then v1; 0: no quota
  double quota = 0, period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string text;
  if (v2 >> text >> period && text != "max") {
    quota = std::strtod(text.c_str(), nullptr);
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? std::max(1, int(quota / period + 0.5)) : 0;
}

int find_openmp(dl_phdr_info* info, size_t, void* found) {
  const char* slash = std::strrchr(info->dlpi_name, '/');
  const char* base = slash ? slash + 1 : info->dlpi_name;
  for (const char* known : {"libgomp", "libiomp5", "libomp"})
    if (std::strncmp(base, known, std::strlen(known)) == 0) {
      *static_cast<std::string*>(found) = info->dlpi_name;
      return 1;
    }
  return 0;
}

// No thread but the caller's survives a fork: an OpenMP team would be waited for without end, and
// regions in progress in other threads never end in the child.
void forget_threads() {
  openmp = nullptr;
  regions = 0;
  forget_pool();
}
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, forget_threads);

void run_on_openmp(int size, FunctionRef<void(int, int)> body) {
  struct Context {
    FunctionRef<void(int, int)>* body;
  } context{&body};
  openmp->parallel(
      [](void* data) {
        (*static_cast<Context*>(data)->body)(openmp->thread_num(), openmp->num_threads());
      },
      &context, unsigned(size), 0);
}

}  // namespace

void Team::barrier() const {
  if (size > 1) sync->arrive_and_wait(size);
}

int num_cpus() {
  static const int count = [] {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = quota_cpus();
    return std::max(1, quota ? std::min(n, quota) : n);
  }();
  return count;
}

int num_threads() {
  if (held) return held->size;
  int n = wanted.load(std::memory_order_relaxed);
  if (n < 0) {
    n = env::num_threads();
    wanted.store(n);
  }
  if (n == 0) n = openmp ? openmp->max_threads() : num_cpus();
  return std::clamp(n, 1, num_cpus());
}

void set_num_threads(int n) { wanted.store(n); }

const char* attach_openmp() {
  static OpenMP found;
  if (found.file.empty()) {
    dl_iterate_phdr(find_openmp, &found.file);
    if (found.file.empty()) return nullptr;
    void* lib = dlopen(found.file.c_str(), RTLD_NOW | RTLD_NOLOAD);
    auto entry = [&](auto& f, const char* name) {
      f = lib ? reinterpret_cast<std::remove_reference_t<decltype(f)>>(dlsym(lib, name)) : nullptr;
      return f != nullptr;
    };
    if (!entry(found.parallel, "GOMP_parallel") || !entry(found.thread_num, "omp_get_thread_num") ||
        !entry(found.num_threads, "omp_get_num_threads") ||
        !entry(found.max_threads, "omp_get_max_threads") ||
        !entry(found.in_parallel, "omp_in_parallel")) {
      found.file.clear();
      return nullptr;
    }
    openmp = &found;
  }
  return found.file.c_str();
}

namespace {

// A region of at most `size` threads, each of which gets its rank and how many there are. Several
// Python threads at once share the CPUs instead of each taking all of them.
void run_region(int size, FunctionRef<void(int, int)> member) {
  struct Region {
    int others = regions.fetch_add(1);
    ~Region() { regions.fetch_sub(1); }
  } region;
  size = std::min(size, std::max(1, num_cpus() / (region.others + 1)));
  if (size == 1) {
    member(0, 1);
  } else if (openmp) {
    run_on_openmp(size, member);
  } else if (!run_on_pool(size, [&](int rank) { member(rank, size); })) {
    member(0, 1);
  }
}

bool is_alone() { return inside || (openmp && openmp->in_parallel()); }

}  // namespace

void run_team(int max_size, FunctionRef<void(const Team&)> body) {
  int size = max_size > 0 ? std::min(max_size, num_threads()) : num_threads();
  if (held && !inside && size > 1) return held->run(size, body);
  if (size == 1 || is_alone()) {
    body(Team{0, 1, nullptr});
    return;
  }
  Barrier sync;
  run_region(size, [&](int rank, int count) {
    Inside here;
    body(Team{rank, count, &sync});
  });
}

void hold_team(FunctionRef<void()> body) {
  const int size = num_threads();
  if (held || size == 1 || is_alone()) return body();
  Held team{};
  std::exception_ptr error;  // does not pass through the runtime's frames
  run_region(size, [&](int rank, int count) {
    if (rank > 0) return team.serve(rank, count);
    team.size = count;
    held = &team;
    try {
      body();
    } catch (...) {
      error = std::current_exception();
    }
    held = nullptr;
    team.job = nullptr;
    if (count > 1) team.turn.arrive_and_wait(count);
  });
  if (error) std::rethrow_exception(error);
}

void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (n <= 0) return;
  int64_t pieces = std::min<int64_t>(num_threads(), (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (pieces <= 1) {
    body(0, n);
    return;
  }
  run_team(int(pieces), [&](const Team& team) { body(team.begin(n), team.end(n)); });
}

}  // namespace honed
