// Winograd: blocks of tiles and who works on them.
#include "ops/_winograd.h"

#include <algorithm>
#include <atomic>

#include "core/arena.h"
#include "cpu/dispatch.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

int64_t frequencies_of(int tile) { return (tile + 2) * (tile + 2); }

// An odd number of cache lines: rows of a tile and frequencies do not meet in a few sets.
int64_t odd_lines(int64_t floats) { return (ceil_div(floats, 16) | 1) * 16; }

// What steps cost beside one multiplication and addition of a product of matrices (0.0095 ns of a Zen 4 core):
// a number of the weight, from memory where it is large; the transforms of a tile, a channel in or out; the transform of a
// weight's 3 x 3 numbers, or their packing.
constexpr double kTransform2 = 160, kTransform4 = 400;
double stream(double numbers) { return numbers * (numbers > (1 << 20) ? 16 : 4); }
constexpr double kPack2 = 500, kPack4 = 950, kPackDirect = 220;
// With fewer the sums are so short that the transforms' roundings stand out.
constexpr double kFewestChannels = 8;

std::atomic<int> forced{-1};

// How tiles are divided: by the shape alone, so that sums do not depend on the threads.
struct Blocks {
  int64_t tiles, count, group;
  bool shared;  // all threads work on one block at a time
};

Blocks blocks_of(int tile, int64_t tiles, int64_t channels, int64_t panels) {
  const int64_t weight = frequencies_of(tile) * panels * kPanel * channels * 4;
  Blocks b;
  // Weights that come from memory are read by one thread only, for many tiles.
  b.shared = weight > (16 << 20) || tiles < 112;
  const int64_t fit = (512 << 10) / (frequencies_of(tile) * channels * 4) / 14 * 14;
  const int64_t most = b.shared ? 168 : std::clamp<int64_t>(fit, 28, 112);
  int64_t blocks = ceil_div(tiles, most);
  if (!b.shared) blocks = ceil_div(blocks, 2) * 2;
  b.tiles = ceil_div(tiles, blocks);
  b.count = ceil_div(tiles, b.tiles);
  b.group = std::min<int64_t>(b.shared ? 32 : 2, panels);
  return b;
}

}  // namespace

int64_t winograd_rows(const WinogradArgs& a) {
  return (a.first + a.count - 1) / a.across - a.first / a.across + 1;
}
int64_t winograd_chunks(const WinogradArgs& a) { return ceil_div(a.channels, kWinogradChannels); }
int64_t winograd_strip_bytes(int tile) {
  return int64_t{tile + 2} * (kWinogradRun * tile + 2) * kWinogradChannels * 4;
}

int64_t winograd_weight_bytes(int tile, int64_t outputs, int64_t channels) {
  return frequencies_of(tile) * ceil_div(outputs, kPanel) * kPanel * channels * 4;
}

void winograd_weight(int tile, const TensorView& w, void* to) {
  WinogradWeightArgs args{
      tile,        w.data,      w.dtype,     w.size(0),   w.size(1),
      w.stride(0), w.stride(1), w.stride(3), w.stride(4), static_cast<float*>(to)};
  cpu::run(cpu::kernels().winograd_weight, args,
           ceil_div(args.outputs, kPanel) * ceil_div(args.channels, kWinogradWeights),
           cpu::grain_for(kWinogradWeights * kPanel * frequencies_of(tile)));
}

int winograd_tile(const TensorView& y, const TensorView& x, const ConvShape& s, bool packed) {
  if (!is_float(x.dtype) || s.groups != 1) return 0;
  for (int i = 0; i < 3; ++i)
    if (s.kernel[i] != (i ? 3 : 1) || s.stride[i] != 1 || s.dilation[i] != 1) return 0;
  if (x.size(2) != 1 || y.size(2) != 1 || s.before[0] != 0) return 0;
  if (forced.load() >= 0) return forced.load();
  const double channels = double(x.size(1)), outputs = double(y.size(1));
  if (channels < kFewestChannels) return 0;
  const double weight = channels * outputs;
  double least = 9 * weight * double(y.numel()) / outputs + stream(9 * weight);
  if (!packed) least += kPackDirect * weight + stream(9 * weight);
  int best = 0;
  for (int tile : {2, 4}) {
    const double n = double(y.size(0) * ceil_div(y.size(3), tile) * ceil_div(y.size(4), tile));
    const double padded = double(ceil_div(y.size(1), kPanel) * kPanel);
    // Few rows leave the multipliers waiting for weights.
    const double rows = n * (1 + 1.5 / std::min(n, 14.0));
    const double frequencies = double(frequencies_of(tile));
    double cost = frequencies * channels * padded * rows + stream(frequencies * weight) +
                  n * (channels + outputs) * (tile == 4 ? kTransform4 : kTransform2);
    if (!packed) cost += weight * (tile == 4 ? kPack4 : kPack2) + stream(frequencies * weight);
    if (cost < least) least = cost, best = tile;
  }
  return best;
}

void set_winograd(int tile) { forced.store(tile); }

void winograd(const TensorView& y, const TensorView& x, const float* weights, int tile,
              const ConvShape& shape, const ConvEpilogue& epilogue) {
  if (y.numel() == 0) return;
  const TensorView* residual = epilogue.residual;
  WinogradArgs args{};
  args.x = image_of(x);
  args.border = shape.border;
  args.tile = tile;
  for (int i = 0; i < 2; ++i) {
    args.before[i] = shape.before[i + 1];
    args.size[i] = y.size(i + 3);
    args.y_s[i] = y.stride(i + 3);
    if (residual) args.residual_s[i] = residual->stride(i + 3);
  }
  args.down = ceil_div(args.size[0], tile);
  args.across = ceil_div(args.size[1], tile);
  args.channels = x.size(1);
  args.outputs = y.size(1);
  args.panels = ceil_div(args.outputs, kPanel);
  args.u = weights;
  args.to = {y.data, 0, y.stride(1), y.dtype};
  args.to.activation = epilogue.activation;
  args.y_n = y.stride(0);
  if (residual) {
    args.to.residual = residual->data;
    args.to.residual_col = residual->stride(1);
    args.residual_n = residual->stride(0);
  }
  Scratch bias(epilogue.bias ? args.panels * kPanel * 4 : 0);
  if (epilogue.bias) {
    for (int64_t i = 0; i < args.panels * kPanel; ++i)
      bias.as<float>()[i] =
          i < args.outputs ? element(*epilogue.bias, i * epilogue.bias->stride(0)) : 0.0f;
    args.to.bias = bias.as<float>();
  }
  const int64_t tiles = y.size(0) * args.down * args.across;
  const Blocks blocks = blocks_of(tile, tiles, args.channels, args.panels);
  const int64_t frequencies = frequencies_of(tile);
  args.v_row = odd_lines(args.channels);
  args.v_step = odd_lines(blocks.tiles * args.v_row);
  args.m_step = odd_lines(blocks.group * blocks.tiles * kPanel);
  const int64_t v_bytes = frequencies * args.v_step * 4, m_bytes = frequencies * args.m_step * 4;
  const int64_t strip_bytes = winograd_strip_bytes(tile);
  const cpu::KernelTable& kernels = cpu::kernels();
  auto take_block = [&](WinogradArgs& a, int64_t block) {
    a.first = block * blocks.tiles;
    a.count = std::min(blocks.tiles, tiles - a.first);
  };
  auto take_panels = [&](WinogradArgs& a, int64_t panel) {
    a.panel = panel;
    a.group = std::min(blocks.group, args.panels - panel);
  };
  const int64_t operations =
      std::min(tiles, blocks.tiles) * frequencies * args.channels * args.outputs / 8 * blocks.count;
  int threads = cpu::threads_for(operations);
  if (!blocks.shared) {
    threads = int(std::min<int64_t>(threads, blocks.count));
    std::atomic<int64_t> next{0};
    const int64_t bytes = v_bytes + m_bytes + strip_bytes;
    Scratch scratch(threads * bytes);
    run_team(threads, [&](const Team& team) {
      WinogradArgs a = args;
      a.v = scratch.as<float>() + team.rank * bytes / 4;
      a.m = a.v + v_bytes / 4;
      a.strip = a.m + m_bytes / 4;
      for (int64_t block; (block = next.fetch_add(1)) < blocks.count;) {
        take_block(a, block);
        kernels.winograd_input(a, 0, winograd_rows(a) * winograd_chunks(a));
        for (int64_t panel = 0; panel < a.panels; panel += blocks.group) {
          take_panels(a, panel);
          kernels.winograd_product(a, 0, frequencies * a.group);
          kernels.winograd_output(a, 0, winograd_rows(a) * a.group);
        }
      }
    });
    return;
  }
  Scratch scratch(v_bytes + m_bytes + threads * strip_bytes);
  args.v = scratch.as<float>();
  args.m = args.v + v_bytes / 4;
  run_team(threads, [&](const Team& team) {
    WinogradArgs a = args;
    a.strip = a.m + (m_bytes + team.rank * strip_bytes) / 4;
    auto share = [&](auto kernel, int64_t items) {
      kernel(a, team.begin(items), team.end(items));
      team.barrier();
    };
    for (int64_t block = 0; block < blocks.count; ++block) {
      take_block(a, block);
      share(kernels.winograd_input, winograd_rows(a) * winograd_chunks(a));
      for (int64_t panel = 0; panel < a.panels; panel += blocks.group) {
        take_panels(a, panel);
        share(kernels.winograd_product, frequencies * a.group);
        share(kernels.winograd_output, winograd_rows(a) * a.group);
      }
    }
  });
}

}  // namespace honed
