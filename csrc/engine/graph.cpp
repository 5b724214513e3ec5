// Values in an arena by when they are read last; images over threads.
#include "engine/graph.h"

#include <algorithm>

#include "core/arena.h"
#include "core/parallel.h"

namespace honed::engine {

namespace {

constexpr int64_t kLine = 64;

int64_t bytes_of(const TensorView& view) {
  return (view.numel() * size_of(view.dtype) + kLine - 1) / kLine * kLine;
}

bool is_dense(const TensorView& view) {
  int64_t last = 0;
  for (int d = 0; d < view.ndim; ++d) {
    if (view.shape[d] > 1 && view.strides[d] <= 0) return false;
    last += (view.shape[d] - 1) * view.strides[d];
  }
  return view.numel() > 0 && last + 1 == view.numel();
}

// Pieces of the arena that are in use, in the order in which they lie.
class Layout {
 public:
  // The smallest gap that is large enough, else the end.
  int64_t take(int64_t bytes) {
    int64_t best = -1, best_gap = 0, from = 0;
    for (const Piece& piece : pieces_) {
      const int64_t gap = piece.begin - from;
      if (gap >= bytes && (best < 0 || gap < best_gap)) {
        best = from;
        best_gap = gap;
      }
      from = piece.end;
    }
    if (best < 0) best = from;
    const Piece made{best, best + bytes};
    pieces_.insert(std::upper_bound(pieces_.begin(), pieces_.end(), made), made);
    size_ = std::max(size_, made.end);
    return best;
  }
  void give(int64_t begin) {
    std::erase_if(pieces_, [&](const Piece& piece) { return piece.begin == begin; });
  }
  int64_t size() const { return size_; }

 private:
  struct Piece {
    int64_t begin, end;
    bool operator<(const Piece& other) const { return begin < other.begin; }
  };
  std::vector<Piece> pieces_;
  int64_t size_ = 0;
};

}  // namespace

int Graph::add(const TensorView& view, Place place, int64_t at) {
  const int number = int(values_.size());
  values_.push_back({view, place, number, at});
  return number;
}

int Graph::add_input(const TensorView& view) {
  inputs_.push_back(add(view, Place::input, int64_t(inputs_.size())));
  return inputs_.back();
}

int Graph::add_constant(const TensorView& view) { return add(view, Place::constant); }

int Graph::add_view(int of, const TensorView& view) {
  const Value base = values_[size_t(values_[size_t(of)].base)];
  const int number = add(view, base.place, base.at);
  values_.back().base = base.base;
  return number;
}

int Graph::add_result(const TensorView& view) { return add(view, Place::arena); }

void Graph::add_step(Work work, std::vector<int> reads, std::vector<int> makes) {
  steps_.push_back({std::move(work), std::move(reads), std::move(makes)});
}

bool Graph::add_output(int value) {
  const TensorView& view = values_[size_t(value)].view;
  Value& base = values_[size_t(values_[size_t(value)].base)];
  if (base.place != Place::arena || !is_dense(view) || view.numel() != base.view.numel())
    return false;
  base.place = Place::output;
  base.at = int64_t(outputs_.size());
  outputs_.push_back(value);
  return true;
}

void Graph::finish() {
  auto base_of = [&](int value) { return size_t(values_[size_t(value)].base); };
  std::vector<size_t> last(values_.size(), 0);
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (int value : steps_[i].reads) last[base_of(value)] = i;
    for (int value : steps_[i].makes) last[base_of(value)] = i;
  }
  Layout layout;
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (int made : steps_[i].makes) {
      Value& value = values_[size_t(made)];
      if (value.place == Place::arena)
        value.at = layout.take(std::max(kLine, bytes_of(value.view)));
    }
    auto done = [&](int number) {
      const Value& value = values_[base_of(number)];
      if (value.place == Place::arena && last[base_of(number)] == i) layout.give(value.at);
    };
    for (int value : steps_[i].reads) done(value);
    for (int value : steps_[i].makes) done(value);
  }
  bytes_ = layout.size();
}

void Graph::run_one(const Images* inputs, const Images* outputs, int64_t image) const {
  Scratch arena(bytes_);
  std::vector<TensorView> views;
  views.reserve(values_.size());
  for (const Value& value : values_) {
    const Value& base = values_[size_t(value.base)];
    TensorView& view = views.emplace_back(value.view);
    switch (base.place) {
      case Place::input:
        view.data = inputs[base.at].data + image * inputs[base.at].step;
        break;
      case Place::output:
        view.data = outputs[base.at].data + image * outputs[base.at].step;
        break;
      case Place::arena:
        view.data = arena.as<char>() + base.at;
        break;
      case Place::constant:
        break;
    }
  }
  for (const Step& step : steps_) step.work(views.data());
}

void Graph::run(const Images* inputs, const Images* outputs, int64_t images) const {
  hold_team([&] {
    const int64_t threads = num_threads(), apart = threads > 1 ? images / threads * threads : 0;
    if (apart > 0)
      run_team(0, [&](const Team& team) {
        for (int64_t i = team.begin(apart); i < team.end(apart); ++i) run_one(inputs, outputs, i);
      });
    for (int64_t i = apart; i < images; ++i) run_one(inputs, outputs, i);
  });
}

}  // namespace honed::engine
