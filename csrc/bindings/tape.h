// Writes down what a thread calls: a step of an engine::Graph for each function of function.h.
//
// While a tape runs, values are known by the Python objects that hold them. A call with a tensor that
// is neither input, constant nor result of another call fails the tape.
#pragma once
#include <memory>
#include <vector>

#include "bindings/results.h"
#include "bindings/tensor.h"
#include "engine/graph.h"

namespace honed::bindings {

class Tape {
 public:
  // The one that runs on this thread; nullptr: none.
  static Tape* current() { return running_; }

  int read(PyObject* object);  // the value's number, of the step that is written down next
  void keep(PyObject* object);
  void made(PyObject* object, const TensorView& view);  // by that step; None: -1
  using Body = std::function<void(Results& results, const TensorView* values)>;
  void step(Body body);

  void input(PyObject* object);
  void constant(PyObject* object);
  // Whether an object is a value, or lies where one lies, as a view of all of it does.
  bool knows(PyObject* object);
  bool output(PyObject* object);  // false where it cannot be one
  void fail() { failed_ = true; }
  bool failed() const { return failed_; }

  void start() { running_ = this; }
  static void none() { running_ = nullptr; }
  std::unique_ptr<engine::Graph> finish();
  std::vector<py::object> kept() { return std::move(kept_); }

 private:
  struct Known {
    PyObject* object;
    int value;
    void* data;
  };
  const Known* find(PyObject* object) const;

  static thread_local Tape* running_;
  std::unique_ptr<engine::Graph> graph_ = std::make_unique<engine::Graph>();
  std::vector<Known> known_;
  std::vector<py::object> held_;  // values: while the tape runs, no other tensor lies where they do
  std::vector<py::object> kept_;  // what steps and constants need
  std::vector<int> reads_, makes_, results_;
  bool failed_ = false;
};

// How a step has an argument between calls.
template <class T>
struct Kept {
  Kept(Tape&, T given, PyObject*) : value(given) {}
  T get(const TensorView*) const { return value; }
  T value;
};
template <class T>
struct Kept<const T&> {
  Kept(Tape& tape, const T& given, PyObject* object) : value(&given) { tape.keep(object); }
  const T& get(const TensorView*) const { return *value; }
  const T* value;
};
template <>
struct Kept<const TensorView&> {
  Kept(Tape& tape, const TensorView&, PyObject* object) : value(tape.read(object)) {}
  const TensorView& get(const TensorView* values) const { return values[value]; }
  int value;
};
template <>
struct Kept<const TensorView*> {
  Kept(Tape& tape, const TensorView* given, PyObject* object)
      : value(given ? tape.read(object) : -1) {}
  const TensorView* get(const TensorView* values) const {
    return value < 0 ? nullptr : values + value;
  }
  int value;
};

}  // namespace honed::bindings
