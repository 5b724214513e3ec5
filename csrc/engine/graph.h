// A network as data: steps, the values that they read and make, and where these lie. All steps run
// in one call, on threads that are started once; memory is used again as soon as nothing reads it.
#pragma once
#include <functional>
#include <vector>

#include "core/tensor_view.h"

namespace honed::engine {

// Memory that a call gives: of the first image, and bytes from image to image.
struct Images {
  char* data;
  int64_t step;
};

class Graph {
 public:
  // What a step does; values by their numbers.
  using Work = std::function<void(const TensorView* values)>;

  // Each returns the number of a new value, of that shape and with these strides.
  int add_input(const TensorView& view);
  int add_constant(const TensorView& view);      // its memory has to stay
  int add_view(int of, const TensorView& view);  // other sizes and strides, the same memory
  int add_result(const TensorView& view);        // of the step that is added next
  void add_step(Work work, std::vector<int> reads, std::vector<int> makes);
  // False where a value cannot be an output: no step made it, or it has gaps.
  bool add_output(int value);
  void finish();  // after the last step and output: lays out the arena

  const TensorView& view(int value) const { return values_[size_t(value)].view; }
  const std::vector<int>& inputs() const { return inputs_; }
  const std::vector<int>& outputs() const { return outputs_; }
  int64_t arena_bytes() const { return bytes_; }

  // The steps once for each of `images`: several at a time, each on one thread, while there are enough of
  // them; else one after the other, each on all threads.
  void run(const Images* inputs, const Images* outputs, int64_t images) const;

 private:
  enum class Place : uint8_t { input, constant, arena, output };
  struct Value {
    TensorView view;
    Place place;
    int base;        // whose memory it is: itself, unless it is a view
    int64_t at = 0;  // in the arena; of inputs and outputs which one it is
  };
  struct Step {
    Work work;
    std::vector<int> reads, makes;
  };

  int add(const TensorView& view, Place place, int64_t at = 0);
  void run_one(const Images* inputs, const Images* outputs, int64_t image) const;

  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<int> inputs_, outputs_;
  int64_t bytes_ = 0;
};

}  // namespace honed::engine
