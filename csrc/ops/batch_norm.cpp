// batch_norm: checks, what is computed once a channel, then the CPU table.
#include "ops/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_norm.h"
#include "ops/_wide_weight.h"

namespace honed {

namespace {

void check_vector(const char* op, const char* what, const TensorView* v, const TensorView& x,
                  int64_t channels) {
  if (!v) return;
  HONED_CHECK_TYPE(is_real(v->dtype) && (v->dtype == DType::f64) == (x.dtype == DType::f64), op,
                   ": ", what, " is ", name_of(v->dtype), " beside an input of ", name_of(x.dtype),
                   ", expected float32, float16 or bfloat16, or float64 for both");
  HONED_CHECK(v->numel() == channels && v->contiguous(), op, ": ", what, " has shape ",
              shape_of(*v), ", expected a contiguous [", channels, "]");
}

void check(const char* op, const TensorView& x, const BatchNormVectors& v, int64_t channels) {
  HONED_CHECK_TYPE(is_real(x.dtype), op, ": input is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  check_vector(op, "running_mean", v.mean, x, channels);
  check_vector(op, "running_var", v.var, x, channels);
  check_vector(op, "weight", v.w, x, channels);
  check_vector(op, "bias", v.b, x, channels);
}

void check_like(const char* op, const char* what, const TensorView* t, const TensorView& x) {
  if (!t) return;
  HONED_CHECK_TYPE(t->dtype == x.dtype, op, ": ", what, " is ", name_of(t->dtype),
                   ", expected input's type, ", name_of(x.dtype));
  HONED_CHECK(same_shape(*t, x), op, ": ", what, " has shape ", shape_of(*t),
              ", expected input's, ", shape_of(x));
}

template <class Args>
void bound(Args* args, BatchNormActivation activation) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  args->low = activation == BatchNormActivation::none ? kNone : 0;
  args->high = activation == BatchNormActivation::relu6 ? 6 : kNone;
}

// Calls f(float()) or f(double()): the type of sums.
template <class F>
void in_sums(DType dtype, F&& f) {
  if (dtype == DType::f64)
    f(double());
  else
    f(float());
}

int64_t elements_of(const BatchNormShape& s) { return s.batch * s.size; }

// Rows of a block: about 64 items in all, few sums of blocks to add; by the shape alone.
int64_t block_of(const BatchNormShape& s) {
  constexpr int64_t kItems = 64, kLeast = 64;
  int64_t pieces = (s.channels + kBatchNormPiece - 1) / kBatchNormPiece;
  int64_t blocks = std::max<int64_t>(1, kItems / std::max<int64_t>(pieces, 1));
  return std::max(kLeast, (elements_of(s) + blocks - 1) / blocks);
}

template <class Args>
void run_blocks(cpu::Kernel<Args> kernel, const Args& args, int64_t blocks) {
  int64_t pieces = (args.shape.channels + kBatchNormPiece - 1) / kBatchNormPiece;
  int64_t width = std::min(args.shape.channels, kBatchNormPiece);
  cpu::run(kernel, args, blocks * pieces, cpu::grain_for(args.block * width / 2));
}

// Over rows of channels, or planes of positions.
template <class Args>
void run_rows(cpu::Kernel<Args> kernel, const Args& args) {
  const BatchNormShape& s = args.shape;
  if (s.channels_last)
    cpu::run(kernel, args, elements_of(s), cpu::grain_for(s.channels / 4));
  else
    cpu::run(kernel, args, s.batch * s.channels, cpu::grain_for(s.size / 4));
}

// Means and unbiased variances of the means and squares of blocks (Chan, Golub and LeVeque).
template <class S>
void merge_moments(const S* parts, int64_t block, const BatchNormShape& shape, S* mean, S* var) {
  int64_t rows = elements_of(shape), channels = shape.channels;
  Scratch room(2 * channels * int64_t(sizeof(double)));
  double *means = room.as<double>(), *squares = means + channels;
  std::fill(means, means + 2 * channels, 0.0);
  for (int64_t from = 0, at = 0; from < rows; from += block, ++at) {
    double share = double(std::min(block, rows - from)) / double(rows);
    const S* part = parts + 2 * at * channels;
    for (int64_t c = 0; c < channels; ++c) means[c] += share * part[c];
  }
  for (int64_t from = 0, at = 0; from < rows; from += block, ++at) {
    double count = double(std::min(block, rows - from));
    const S* part = parts + 2 * at * channels;
    for (int64_t c = 0; c < channels; ++c) {
      double apart = part[c] - means[c];
      squares[c] += part[channels + c] + count * apart * apart;
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = S(means[c]);
    var[c] = S(squares[c] / double(rows - 1));
  }
}

}  // namespace

void batch_norm(const TensorView& y, const TensorView& x, const BatchNormVectors& vectors,
                const TensorView* residual, double eps, BatchNormActivation activation,
                const BatchNormShape& shape) {
  check("batch_norm", x, vectors, shape.channels);
  check_like("batch_norm", "residual", residual, x);
  WideWeight mean(vectors.mean), var(vectors.var), w(vectors.w), b(vectors.b);
  in_sums(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    Scratch room(2 * shape.channels * int64_t(sizeof(S)));
    S *scale = room.as<S>(), *shift = scale + shape.channels;
    const S *vars = static_cast<const S*>(var.data()), *ws = static_cast<const S*>(w.data()),
            *bs = static_cast<const S*>(b.data());
    for (int64_t c = 0; c < shape.channels; ++c) {
      scale[c] = (ws ? ws[c] : S(1)) / std::sqrt(vars[c] + S(eps));
      shift[c] = bs ? bs[c] : S(0);
    }
    BatchNormArgs args{};
    args.x = x.data;
    args.residual = residual ? residual->data : nullptr;
    args.y = y.data;
    args.mean = const_cast<void*>(mean.data());
    args.scale = scale;
    args.shift = shift;
    args.shape = shape;
    args.dtype = x.dtype;
    bound(&args, activation);
    run_rows(cpu::kernels().batch_norm, args);
  });
}

void batch_norm_training(const TensorView& y, const TensorView& mean, const TensorView& var,
                         const TensorView& x, const BatchNormVectors& vectors,
                         const TensorView* residual, double eps, BatchNormActivation activation,
                         const BatchNormShape& shape) {
  check("batch_norm", x, vectors, shape.channels);
  check_like("batch_norm", "residual", residual, x);
  HONED_CHECK(elements_of(shape) > 1, "batch_norm: input has ", elements_of(shape),
              " values a channel, expected more than 1 when training");
  if (!shape.channels_last) {
    WideWeight w(vectors.w), b(vectors.b);
    BatchNormArgs args{};
    args.x = x.data;
    args.residual = residual ? residual->data : nullptr;
    args.y = y.data;
    args.w = w.data();
    args.b = b.data();
    args.mean = mean.data;
    args.var = var.data;
    args.shape = shape;
    args.eps = eps;
    args.dtype = x.dtype;
    bound(&args, activation);
    cpu::run(cpu::kernels().batch_norm_planes, args, shape.channels,
             cpu::grain_for(elements_of(shape) / 2));
    return;
  }
  in_sums(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    int64_t block = block_of(shape), blocks = (elements_of(shape) + block - 1) / block;
    Scratch parts((2 * blocks + 1) * shape.channels * int64_t(sizeof(S)));
    BatchNormArgs args{};
    args.x = x.data;
    args.parts = parts.as<S>();
    args.shape = shape;
    args.block = block;
    args.dtype = x.dtype;
    run_blocks(cpu::kernels().batch_norm_moments, args, blocks);
    merge_moments(parts.as<S>(), block, shape, mean.as<S>(), var.as<S>());
    // The variance that the normalisation takes is the biased one.
    TensorView biased = var;
    biased.data = parts.as<S>() + 2 * blocks * shape.channels;
    for (int64_t c = 0; c < shape.channels; ++c)
      biased.as<S>()[c] =
          S(double(var.as<S>()[c]) * double(elements_of(shape) - 1) / double(elements_of(shape)));
    batch_norm(y, x, {&mean, &biased, vectors.w, vectors.b}, residual, eps, activation, shape);
  });
}

void batch_norm_backward(const BatchNormGradients& t, double eps, BatchNormActivation activation,
                         const BatchNormShape& shape, bool training) {
  check("batch_norm_backward", t.x, t.vectors, shape.channels);
  check_like("batch_norm_backward", "grad", &t.g, t.x);
  check_like("batch_norm_backward", "result", t.y, t.x);
  WideWeight mean(t.vectors.mean), var(t.vectors.var), w(t.vectors.w);
  in_sums(t.x.dtype, [&](auto zero) {
    using S = decltype(zero);
    int64_t channels = shape.channels, count = elements_of(shape);
    int64_t block = shape.channels_last ? block_of(shape) : count;
    int64_t blocks = shape.channels_last ? (count + block - 1) / block : 1;
    Scratch room((6 + 2 * blocks) * channels * int64_t(sizeof(S)));
    S *scale = room.as<S>(), *inverse = scale + channels, *shift = inverse + channels,
      *back = shift + channels, *dw = back + channels, *db = dw + channels, *sums = db + channels;
    const S *vars = static_cast<const S*>(var.data()), *ws = static_cast<const S*>(w.data());
    S biased = training ? S(double(count - 1) / double(std::max<int64_t>(count, 1))) : S(1);
    for (int64_t c = 0; c < channels; ++c) {
      inverse[c] = S(1) / std::sqrt(vars[c] * biased + S(eps));
      scale[c] = (ws ? ws[c] : S(1)) * inverse[c];
    }
    BatchNormBackwardArgs args{};
    args.g = t.g.data;
    args.x = t.x.data;
    args.y = t.y ? t.y->data : nullptr;
    args.dx = t.dx ? t.dx->data : nullptr;
    args.d_residual = t.d_residual ? t.d_residual->data : nullptr;
    args.mean = mean.data();
    args.scale = scale;
    args.inverse = inverse;
    args.sums = sums;
    args.shift = shift;
    args.back = back;
    args.shape = shape;
    args.block = block;
    args.training = training;
    args.dtype = t.x.dtype;
    bound(&args, activation);
    std::fill(sums, sums + 2 * blocks * channels, S(0));
    if (!shape.channels_last)
      cpu::run(cpu::kernels().batch_norm_backward, args, channels, cpu::grain_for(count));
    else if (t.dw || t.db || training)
      run_blocks(cpu::kernels().batch_norm_backward_sums, args, blocks);
    for (int64_t c = 0; c < channels; ++c) {
      double of_g = 0, of_gx = 0;
      for (int64_t at = 0; at < blocks; ++at) {
        of_g += sums[2 * at * channels + c];
        of_gx += sums[(2 * at + 1) * channels + c];
      }
      db[c] = S(of_g);
      dw[c] = S(of_gx * inverse[c]);
      shift[c] = training ? S(of_g / double(count)) : S(0);
      back[c] = training ? S(of_gx * inverse[c] * inverse[c] / double(count)) : S(0);
    }
    if (shape.channels_last && (args.dx || args.d_residual))
      run_rows(cpu::kernels().batch_norm_backward_rows, args);
    if (t.dw) add_columns(dw, 1, *t.dw);
    if (t.db) add_columns(db, 1, *t.db);
  });
}

}  // namespace honed
