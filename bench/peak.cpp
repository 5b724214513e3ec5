// What this machine's cores and memory can do: the limits that bench/ sets its figures against.
// Every thread times itself, so starting it costs nothing, and the threads start together. A
// figure is the sum over the threads, the best of the repeats; 0: the CPU has no such instruction.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr size_t kBytes = 64;
#elif defined(__AVX__)
constexpr size_t kBytes = 32;
#else
constexpr size_t kBytes = 16;
#endif
typedef float Floats __attribute__((vector_size(kBytes)));
typedef double Doubles __attribute__((vector_size(kBytes)));

// Has the compiler hold x in a vector register. Without it, GCC keeps an array of accumulators in
// memory and the rate is less than half.
template <class Vec>
inline void keep(Vec& x) {
#if defined(__x86_64__)
  asm volatile("" : "+v"(x));
#else
  asm volatile("" : "+w"(x));
#endif
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The sum over `count` threads of work / time, where body(rank) does the work.
template <class F>
double rate_of(int count, double work, F body) {
  std::atomic<int> waiting{count};
  std::vector<double> rates(static_cast<size_t>(count));
  auto run = [&](int rank) {
    waiting.fetch_sub(1);
    while (waiting.load() > 0) std::this_thread::yield();
    auto start = std::chrono::steady_clock::now();
    body(rank);
    rates[size_t(rank)] = work / seconds_since(start);
  };
  std::vector<std::thread> team;
  for (int i = 1; i < count; ++i) team.emplace_back(run, i);
  run(0);
  double sum = rates[0];
  for (size_t i = 1; i < rates.size(); ++i) {
    team[i - 1].join();
    sum += rates[i];
  }
  return sum;
}

template <class F>
double best_of(int repeats, F measure) {
  double best = 0;
  for (int r = 0; r < repeats; ++r) {
    double rate = measure();
    if (rate > best) best = rate;
  }
  return best;
}

// step(acc) on twelve independent accumulators: more than latency times pipes of any CPU so far,
// few enough for the 16 registers of AVX2. `operations`: of one step.
template <class Vec, class Step>
double instruction_rate(int threads, int repeats, double operations, Vec start, Step step) {
  constexpr int kSteps = 1 << 17, kChains = 12;
  return best_of(repeats, [&] {
    return rate_of(threads, operations * kSteps * kChains, [&](int) {
      auto run = [&](auto... acc) {
        for (int n = 0; n < kSteps; ++n) {
          (step(acc), ...);
          (keep(acc), ...);
        }
      };
      const Vec& s = start;
      run(s, s, s, s, s, s, s, s, s, s, s, s);
    });
  });
}

template <class Vec>
double multiply_add_rate(int threads, int repeats) {
  Vec factor = Vec{} + 0.999f, start = Vec{} + 0.001f;
  double operations = 2.0 * sizeof(Vec) / sizeof(start[0]);
  return instruction_rate(threads, repeats, operations, start,
                          [=](Vec& acc) { acc = acc * factor + start; });
}

}  // namespace

// Bytes a second over `bytes` of memory, each thread its own part.
extern "C" double read_bandwidth(size_t bytes, int threads, int repeats) {
  constexpr size_t kLeast = 8 << 20;  // a thread reads so much before it looks at the clock
  static std::vector<Floats> data;    // kept: a fresh buffer costs more than reading it
  size_t each = bytes / sizeof(Floats) / size_t(threads) / 8 * 8;
  if (each == 0) return 0;
  if (data.size() < each * size_t(threads)) data.resize(each * size_t(threads), Floats{} + 1.0f);
  size_t passes = 1 + kLeast / (each * sizeof(Floats));
  std::atomic<float> sink{0};
  return best_of(repeats, [&] {
    return rate_of(threads, double(each * sizeof(Floats) * passes), [&](int rank) {
      const Floats* begin = data.data() + size_t(rank) * each;
      Floats sum[8] = {};
      for (size_t pass = 0; pass < passes; ++pass)
        for (const Floats* p = begin; p < begin + each; p += 8)
          for (size_t u = 0; u < 8; ++u) sum[u] += p[u];
      for (size_t u = 1; u < 8; ++u) sum[0] += sum[u];
      sink.store(sum[0][0]);
    });
  });
}

// Fused multiply-adds, in operations a second (two a multiply-add).
extern "C" double fma_rate(int threads, int repeats) {
  return multiply_add_rate<Floats>(threads, repeats);
}

extern "C" double fma64_rate(int threads, int repeats) {
  return multiply_add_rate<Doubles>(threads, repeats);
}

// Products of bytes summed to int32 (vpdpbusd), in operations a second.
extern "C" double int8_dot_rate(int threads, int repeats) {
#if defined(__AVX512VNNI__)
  __m512i left = _mm512_set1_epi8(3), right = _mm512_set1_epi8(-2);
  return instruction_rate(threads, repeats, 128, left,
                          [=](__m512i& acc) { acc = _mm512_dpbusd_epi32(acc, left, right); });
#elif defined(__AVXVNNI__)
  __m256i left = _mm256_set1_epi8(3), right = _mm256_set1_epi8(-2);
  return instruction_rate(threads, repeats, 64, left,
                          [=](__m256i& acc) { acc = _mm256_dpbusd_avx_epi32(acc, left, right); });
#else
  return 0.0 * threads * repeats;
#endif
}

// Products of bf16 pairs summed to f32 (vdpbf16ps), in operations a second.
extern "C" double bf16_dot_rate(int threads, int repeats) {
#if defined(__AVX512BF16__)
  __m512 start = _mm512_set1_ps(0.001f);
  __m512bh left = _mm512_cvtne2ps_pbh(start, start);
  return instruction_rate(threads, repeats, 64, start,
                          [=](__m512& acc) { acc = _mm512_dpbf16_ps(acc, left, left); });
#else
  return 0.0 * threads * repeats;
#endif
}
