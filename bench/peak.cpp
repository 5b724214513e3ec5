// What this machine's cores and memory can do: the limits that bench/ sets its figures against.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

namespace {

typedef float Vec __attribute__((vector_size(64)));

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <class F>
void on_threads(int count, F body) {
  std::vector<std::thread> team;
  for (int i = 1; i < count; ++i) team.emplace_back(body, i);
  body(0);
  for (std::thread& each : team) each.join();
}

}  // namespace

// The best of `repeats` passes of all threads over `bytes` of memory, in bytes a second.
extern "C" double read_bandwidth(size_t bytes, int threads, int repeats) {
  size_t each = bytes / sizeof(Vec) / size_t(threads);
  std::vector<Vec> data(each * size_t(threads), Vec{} + 1.0f);
  std::atomic<float> sink{0};
  double best = 0;
  for (int r = 0; r < repeats; ++r) {
    auto start = std::chrono::steady_clock::now();
    on_threads(threads, [&](int rank) {
      const Vec* p = data.data() + size_t(rank) * each;
      Vec sum[8] = {};
      for (size_t i = 0; i + 8 <= each; i += 8)
        for (size_t u = 0; u < 8; ++u) sum[u] += p[i + u];
      for (size_t u = 1; u < 8; ++u) sum[0] += sum[u];
      sink.store(sum[0][0]);
    });
    double rate = double(each * size_t(threads) * sizeof(Vec)) / seconds_since(start);
    if (rate > best) best = rate;
  }
  return best;
}

// f32 fused multiply-adds of all threads, in operations a second (two a multiply-add).
extern "C" double fma_rate(int threads, int repeats) {
  constexpr int kSteps = 1 << 20, kChains = 16;
  std::atomic<float> sink{0};
  double best = 0;
  for (int r = 0; r < repeats; ++r) {
    auto start = std::chrono::steady_clock::now();
    on_threads(threads, [&](int rank) {
      Vec acc[kChains], a = Vec{} + 0.999f, b = Vec{} + 0.001f * float(rank + 1);
      for (Vec& each : acc) each = b;
      for (int i = 0; i < kSteps; ++i)
        for (Vec& each : acc) each = each * a + b;
      for (int u = 1; u < kChains; ++u) acc[0] += acc[u];
      sink.store(acc[0][0]);
    });
    double operations = 2.0 * kSteps * kChains * (sizeof(Vec) / sizeof(float)) * threads;
    double rate = operations / seconds_since(start);
    if (rate > best) best = rate;
  }
  return best;
}
