// The rules of generation from Python: dicts of transformers' option names and ours.
#pragma once
#include <pybind11/pybind11.h>

#include <vector>

#include "ops/_token_rules.h"

namespace honed::bindings {

// A dict's rules in the order of transformers' processors; those of a list of dicts one dict after the
// other; None: no rules. Throws ValueError for a name or a value that is none.
TokenRules read_token_rules(const pybind11::handle& given);

// One a row, from a sequence of `rows` such objects; from None or one object: the same for every row.
std::vector<RuleState> read_rule_states(const pybind11::handle& given, int64_t rows);

void bind_token_rules(pybind11::module_& m);

}  // namespace honed::bindings
