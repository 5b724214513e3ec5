// 3 x 3 convolutions of stride 1 by Winograd's products: F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3).
//
// y = A^T (G g G^T . B^T d B) A for tiles d of 4 x 4 (6 x 6) inputs and 2 x 2 (4 x 4) outputs: 4 (2.25)
// products an output instead of 9. One matrix product a frequency sums over channels. Interpolation is
// at 0, +-1, infinity and at 0, +-5/8, +-3/2, infinity: of the points tried for 4 x 4 these round least,
// a third as much as 0, +-1, +-2, and f32 holds all their numbers but the weight's exactly.
//
// Error, u = 2^-24: |y' - y| <= (min(C, 64) + C / 64 + 24) u |A^T| (|G g G^T| . |B^T| |d| |B|) |A|, summed
// over channels. Measured with 8 to 512 channels, normal and rectified inputs: the largest error of an
// output is 0.5 to 1.5 times that of torch's f32 convolution with 2 x 2 outputs and 2.3 to 7.1 times
// with 4 x 4; in the root mean square 0.7 to 1.5 and 2.2 to 4.1 times. An infinity or NaN in x spreads
// over the outputs of its tiles.
#pragma once
#include "ops/conv.h"

namespace honed {

// Bytes of a weight's transform, and the transform: f32 panels [frequency][panel of 32 outputs]
// [channel][32], summed in double and rounded once. w: (O, C, 1, 3, 3), any strides and float type.
int64_t winograd_weight_bytes(int tile, int64_t outputs, int64_t channels);
void winograd_weight(int tile, const TensorView& w, void* to);

// 2 or 4 where that many outputs a side of a tile are the cheapest way to y, 0 where the direct way
// is. y (N, O, 1, H', W'), x (N, C, 1, H, W); packed: the transform of the weight is there already.
int winograd_tile(const TensorView& y, const TensorView& x, const ConvShape& shape, bool packed);
// Tests choose the tile of all convolutions that this way can do (0: none); -1: by cost again.
void set_winograd(int tile);

// y and x of the same float type, any strides; weights from winograd_weight; a bias of any float type.
void winograd(const TensorView& y, const TensorView& x, const float* weights, int tile,
              const ConvShape& shape, const ConvEpilogue& epilogue);

// Channels of an item of the input's transform, and tiles that it loads at a time.
inline constexpr int kWinogradChannels = 64;
inline constexpr int kWinogradRun = 16;

// Tiles [first, first + count) of all images, rows of tiles after each other, go through `v`
// [frequency][tile][channel] and `m` [frequency][panel][tile][32].
struct WinogradArgs {
  ConvImage x;
  Border border;
  int64_t before[2];
  int tile;
  int64_t size[2];       // of y
  int64_t down, across;  // tiles of an image
  int64_t channels, outputs, panels;
  const float* u;
  int64_t first, count;
  int64_t panel, group;  // panels [panel, panel + group) are in m
  float *strip, *v, *m;
  int64_t v_row, v_step, m_step;  // elements from tile to tile and from frequency to frequency
  Destination to;                 // y_row and residual_row are not used; bias has whole panels
  int64_t y_n, y_s[2], residual_n, residual_s[2];
};
// Items: of the input's transform a row of tiles times kWinogradChannels channels, which are the
// faster index; of the product a frequency times a panel of the group, the faster index; of the
// output's transform a row of tiles times a panel of the group, the faster index.
int64_t winograd_rows(const WinogradArgs& args);
int64_t winograd_chunks(const WinogradArgs& args);
int64_t winograd_strip_bytes(int tile);

// Items: a panel times a channel; panels are the slower index.
struct WinogradWeightArgs {
  int tile;
  const void* w;
  DType dtype;
  int64_t outputs, channels, o, c, h, w_step;  // strides
  float* to;
};

}  // namespace honed
