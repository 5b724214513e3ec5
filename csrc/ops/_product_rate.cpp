// The choice among instructions for products.
#include "ops/_product_rate.h"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <string>

#include "cpu/dispatch.h"

namespace honed {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kVectors = 32;  // of 16 products each, a row in the step that a tile is timed with

double tiles(double ticks, int64_t m) { return ticks * double((m + 15) / 16); }

ProductRates measure() {
  ProductRates least{kNever, kNever, kNever, kNever, kNever, kNever};
  for (int i = 0; i < 5; ++i) {
    ProductRates now{kNever, kNever, kNever, kNever, kNever, kNever};
    cpu::kernels().product_rate({&now}, 0, 12000);
    for (double ProductRates::* each :
         {&ProductRates::fma, &ProductRates::half_fma, &ProductRates::dot2, &ProductRates::dot4,
          &ProductRates::tile2, &ProductRates::tile4})
      least.*each = std::min(least.*each, now.*each);
  }
  return least;
}

// A thread asks the others only where the level changed.
const ProductRates& rates() {
  static std::mutex one;
  static std::map<std::string, ProductRates> measured;
  thread_local const char* level = nullptr;
  thread_local const ProductRates* known = nullptr;
  if (level != cpu::level()) {
    std::lock_guard<std::mutex> lock(one);
    level = cpu::level();
    auto found = measured.find(level);
    if (found == measured.end()) found = measured.emplace(level, measure()).first;
    known = &found->second;
  }
  return *known;
}

}  // namespace

Way way_of_bf16(const ProductRates& r, int64_t m) {
  // A dot does the work of two FMAs, and nothing is widened.
  const double rows = double(m) * kVectors, plain = 2 * rows * r.fma, dots = rows * r.dot2;
  const double tile = tiles(r.tile2, m);
  if (tile < plain && tile < dots) return Way::tiles;
  return dots < plain ? Way::dots : Way::plain;
}

Way way_of_int8(const ProductRates& r, int64_t m) {
  return tiles(r.tile4, m) < double(m) * kVectors * r.dot4 ? Way::tiles : Way::plain;
}

Way way_of_bf16(int64_t m) { return way_of_bf16(rates(), m); }
Way way_of_int8(int64_t m) { return way_of_int8(rates(), m); }
bool half_sums_pay() { return rates().half_fma < 2 * rates().fma; }  // twice the products each

}  // namespace honed
