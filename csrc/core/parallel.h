// The only header that admits threads exist.
//
// A region runs one function on `size` threads, the caller being rank 0. Beside torch it runs on
// torch's own OpenMP team (no second pool competes for the cores); without an OpenMP runtime in the
// process it runs on a small pool of our own.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace honed {

// A borrowed callable: no allocation, valid for the duration of the call it is passed to.
template <class Signature>
class FunctionRef;
template <class... Args>
class FunctionRef<void(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) {
          (*static_cast<std::remove_reference_t<F>*>(object))(args...);
        }) {}
  void operator()(Args... args) const { call_(object_, args...); }

 private:
  void* object_;
  void (*call_)(void*, Args...);
};

// Waits until all `size` threads have arrived: spins briefly, then sleeps.
class Barrier;

struct Team {
  int rank, size;
  Barrier* sync;
  void barrier() const;
  // This rank's contiguous share of [0, n).
  int64_t begin(int64_t n) const { return n * rank / size; }
  int64_t end(int64_t n) const { return n * (rank + 1) / size; }
};

// Threads that a region started now by this thread would get: what was set here, else what torch
// uses, else the machine's; never more than the CPUs this process may run on.
int num_threads();
void set_num_threads(int n);  // 0: follow torch again
int num_cpus();               // CPUs of the affinity mask and the cgroup quota

// Runs body on every rank of a team of at most max_size (0: num_threads()). Inside another region
// the team has one member. The body must not throw.
void run_team(int max_size, FunctionRef<void(const Team&)> body);

// Starts one region for all that the body, on this thread alone, runs: run_team and parallel_for of
// the body hand their work to threads that wait for it instead of starting a region each time.
void hold_team(FunctionRef<void()> body);

// Splits [0, n) into one contiguous piece a thread, of at least `grain` each.
void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

// Looks for an OpenMP runtime in this process (torch's) and uses its team from now on.
// Returns its file name, or nullptr when there is none.
const char* attach_openmp();

}  // namespace honed
