// Which instructions a product is made of: measured once a level, on first use.
#pragma once
#include <cstdint>

#include "ops/linear.h"

namespace honed {

// Ticks of as many instructions of each kind; infinite where the level has none. A tile counts with
// the loads of a panel's step: 16 rows (or fewer) times kPanel channels, 64 bytes of a row.
struct ProductRates {
  double fma, half_fma, dot2, dot4, tile2, tile4;
};
struct ProductRateArgs {
  ProductRates* ticks;
};

// How m rows of bf16 best meet bf16 pairs: plain (widened), dots or tiles.
Way way_of_bf16(int64_t m);
// How m rows of int8 best meet int8 weights of long groups: plain or tiles.
Way way_of_int8(int64_t m);
// True where f16 products are faster summed in f16.
bool half_sums_pay();

// The same from given rates.
Way way_of_bf16(const ProductRates& rates, int64_t m);
Way way_of_int8(const ProductRates& rates, int64_t m);

}  // namespace honed
