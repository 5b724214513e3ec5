// The environment variables, all of them, read in one place.
#pragma once
#include <string>

namespace honed::env {

std::string isa();       // HONED_ISA: a level's name, empty to detect
int num_threads();       // HONED_NUM_THREADS: 0 to follow torch and the machine
std::string cuda_lib();  // HONED_CUDA_LIB: path of the CUDA library, empty to search
bool verbose();          // HONED_VERBOSE=1: say on stderr what ran and what fell back

}  // namespace honed::env
