// SampleOptions from Python: a dict of transformers' option names and ours.
#pragma once
#include <pybind11/pybind11.h>

#include "ops/sample.h"

namespace honed::bindings {

// What is missing or None is off. Throws ValueError for a name that is no option of `sample`.
SampleOptions read_sample_options(const pybind11::dict& given);

}  // namespace honed::bindings
