// honed._core.Tape, Graph, Watch
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/caster.h"
#include "bindings/function.h"
#include "bindings/tape.h"
#include "core/parallel.h"

namespace honed::bindings {

thread_local Tape* Tape::running_ = nullptr;

namespace {

// The results of a step, where the graph has put them.
class PlacedResults : public Results {
 public:
  PlacedResults(const TensorView* values, const int* numbers)
      : values_(values), numbers_(numbers) {}
  TensorView make(std::span<const int64_t>, DType) override { return values_[*numbers_++]; }
  TensorView make_in_order(const TensorView&, const int*) override { return values_[*numbers_++]; }
  void skip() override { ++numbers_; }

 private:
  const TensorView* values_;
  const int* numbers_;
};

bool same_layout(const TensorView& a, const TensorView& b) {
  if (a.ndim != b.ndim || a.dtype != b.dtype) return false;
  for (int i = 0; i < a.ndim; ++i)
    if (a.shape[i] != b.shape[i] || a.strides[i] != b.strides[i]) return false;
  return true;
}

}  // namespace

const Tape::Known* Tape::find(PyObject* object) const {
  for (auto known = known_.rbegin(); known != known_.rend(); ++known)
    if (known->object == object) return &*known;
  return nullptr;
}

int Tape::read(PyObject* object) {
  const Known* known = find(object);
  if (!known) {
    failed_ = true;
    return 0;
  }
  reads_.push_back(known->value);
  return known->value;
}

void Tape::keep(PyObject* object) { kept_.push_back(py::reinterpret_borrow<py::object>(object)); }

void Tape::made(PyObject* object, const TensorView& view) {
  if (object == Py_None) return results_.push_back(-1);
  const int value = graph_->add_result(view);
  known_.push_back({object, value, view.data});
  held_.push_back(py::reinterpret_borrow<py::object>(object));
  makes_.push_back(value);
  results_.push_back(value);
}

void Tape::step(Body body) {
  auto work = [body = std::move(body), results = std::move(results_)](const TensorView* values) {
    PlacedResults placed(values, results.data());
    body(placed, values);
  };
  graph_->add_step(std::move(work), std::move(reads_), std::move(makes_));
  reads_.clear();
  makes_.clear();
  results_.clear();
}

void Tape::input(PyObject* object) {
  Tensor tensor;
  if (!tensor.borrow(object)) return fail();
  known_.push_back({object, graph_->add_input(tensor.view()), tensor->data});
  held_.push_back(py::reinterpret_borrow<py::object>(object));
}

void Tape::constant(PyObject* object) {
  Tensor tensor;
  if (!tensor.borrow(object)) return fail();
  known_.push_back({object, graph_->add_constant(tensor.view()), tensor->data});
  keep(object);
}

bool Tape::knows(PyObject* object) {
  if (find(object)) return true;
  Tensor tensor;
  if (!tensor.borrow(object)) return false;
  for (const Known& known : known_) {
    const TensorView& view = graph_->view(known.value);
    if (known.data != tensor->data || view.dtype != tensor->dtype ||
        view.numel() != tensor->numel())
      continue;
    known_.push_back({object, graph_->add_view(known.value, tensor.view()), tensor->data});
    held_.push_back(py::reinterpret_borrow<py::object>(object));
    return true;
  }
  return false;
}

bool Tape::output(PyObject* object) {
  const Known* known = find(object);
  return known && graph_->add_output(known->value);
}

std::unique_ptr<engine::Graph> Tape::finish() {
  graph_->finish();
  held_.clear();
  known_.clear();
  return std::move(graph_);
}

namespace {

// A graph for Python: of one call of its inputs' sizes, or of the first image of them.
struct PythonGraph {
  std::unique_ptr<engine::Graph> graph;
  std::vector<py::object> kept;

  // The inputs must lie as those of the tape did, but for how many images they have where `many`.
  py::object run(const py::args& args, bool many) const {
    const std::vector<int>&ins = graph->inputs(), &outs = graph->outputs();
    if (args.size() != ins.size()) return py::none();
    std::vector<Tensor> tensors(ins.size());
    std::vector<engine::Images> inputs(ins.size()), outputs(outs.size());
    int64_t images = 1;
    for (size_t i = 0; i < ins.size(); ++i) {
      if (!tensors[i].borrow(args[i].ptr())) return py::none();
      TensorView view = tensors[i].view();
      const TensorView& expected = graph->view(ins[i]);
      const int64_t step = view.ndim > 0 ? view.strides[0] * size_of(view.dtype) : 0;
      if (many) {
        if (view.ndim == 0 || (i > 0 && view.shape[0] != images)) return py::none();
        images = view.shape[0];
        view.shape[0] = expected.shape[0];
        view.strides[0] = expected.strides[0];
      }
      if (!same_layout(view, expected)) return py::none();
      inputs[i] = {view.as<char>(), step};
    }
    std::vector<py::object> made;
    for (size_t i = 0; i < outs.size(); ++i) {
      TensorView like = graph->view(outs[i]);
      if (many) like.shape[0] = images;
      int order[kMaxDims];
      for (int d = 0; d < like.ndim; ++d) order[d] = d;
      std::stable_sort(order + (many ? 1 : 0), order + like.ndim,
                       [&](int a, int b) { return like.strides[a] > like.strides[b]; });
      PythonResults results(tensors[0]);
      const TensorView out =
          like.ndim > 0 ? results.make_in_order(like, order) : results.make_like(like);
      outputs[i] = {out.as<char>(), graph->view(outs[i]).numel() * size_of(out.dtype)};
      made.push_back(py::reinterpret_steal<py::object>(results.give()));
    }
    {
      py::gil_scoped_release released;
      graph->run(inputs.data(), outputs.data(), images);
    }
    if (made.size() == 1) return made[0];
    return py::tuple(py::cast(made));
  }
};

// Whether modules are what they were: entries of dicts by identity, types, containers that are empty.
class Watch {
 public:
  void entry(py::dict dict, py::object key) {
    PyObject* value = PyDict_GetItemWithError(dict.ptr(), key.ptr());
    entries_.push_back({dict, key, py::reinterpret_borrow<py::object>(value)});
  }
  void type(py::object object) {
    types_.push_back({object, py::reinterpret_borrow<py::object>(
                                  reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())))});
  }
  void empty(py::dict dict) { empty_.push_back(dict); }

  bool holds() const {
    for (const Entry& e : entries_)
      if (PyDict_GetItemWithError(e.dict.ptr(), e.key.ptr()) != e.value.ptr()) {
        if (PyErr_Occurred()) throw py::error_already_set();
        return false;
      }
    for (const auto& [object, type] : types_)
      if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) != type.ptr()) return false;
    for (const py::dict& dict : empty_)
      if (PyDict_Size(dict.ptr()) != 0) return false;
    return true;
  }

 private:
  struct Entry {
    py::dict dict;
    py::object key, value;  // no value: there is none
  };
  std::vector<Entry> entries_;
  std::vector<std::pair<py::object, py::object>> types_;
  std::vector<py::dict> empty_;
};

// Runs a function with a tape; its value is a list of results, or None where it gave up.
py::object record(const py::list& inputs, const py::list& constants, const py::function& function) {
  Tape tape;
  for (py::handle each : inputs) tape.input(each.ptr());
  for (py::handle each : constants) tape.constant(each.ptr());
  struct Running {
    Tape* before = Tape::current();
    ~Running() { before ? before->start() : Tape::none(); }
  } running;
  tape.start();
  py::object results = function(py::cast(&tape, py::return_value_policy::reference));
  if (results.is_none() || tape.failed()) return py::none();
  for (py::handle each : py::list(results))
    if (!tape.knows(each.ptr()) || !tape.output(each.ptr())) return py::none();
  auto made = std::make_unique<PythonGraph>();
  made->graph = tape.finish();
  made->kept = tape.kept();
  return py::cast(std::move(made));
}

}  // namespace

void bind_graph(py::module_& m) {
  py::class_<Tape>(m, "Tape", "What writes a graph down while it is made.")
      .def(
          "constant", [](Tape& tape, py::object object) { tape.constant(object.ptr()); },
          "Makes a tensor known that stays what it is.", py::arg("tensor"))
      .def(
          "knows", [](Tape& tape, py::object object) { return tape.knows(object.ptr()); },
          "Whether a tensor is a value of the graph, or a view of all of one.", py::arg("tensor"));
  py::class_<PythonGraph>(m, "Graph", "Calls of this module's functions as one.")
      .def(
          "__call__", [](const PythonGraph& g, const py::args& args) { return g.run(args, false); },
          "The results for inputs that lie as the first ones did; None for others.")
      .def(
          "each", [](const PythonGraph& g, const py::args& args) { return g.run(args, true); },
          "The results for any number of images, each as the one that was written down.")
      .def_property_readonly("arena_bytes",
                             [](const PythonGraph& g) { return g.graph->arena_bytes(); });
  m.def("record", &record,
        "The graph of what function(tape) calls, whose value is the list of its results; None "
        "where there "
        "is none.",
        py::arg("inputs"), py::arg("constants"), py::arg("function"));
  py::class_<Watch>(m, "Watch", "Whether objects are still what they were.")
      .def(py::init<>())
      .def("entry", &Watch::entry, "The dict has the same object there, or none.", py::arg("dict"),
           py::arg("key"))
      .def("type", &Watch::type, "The object is of the same class.", py::arg("object"))
      .def("empty", &Watch::empty, "The dict is empty.", py::arg("dict"))
      .def("holds", &Watch::holds, "Whether all of that is so.");
}

}  // namespace honed::bindings
