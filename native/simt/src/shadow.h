// What global_memory.cpp asks of the shared-memory shadow.
#pragma once

#include <cstddef>

namespace simt {

void mark_pending(char* p, size_t bytes);  // a cp.async will write here
void mark_written(char* p, size_t bytes);  // it has
void check_shared_atomic(void* p, size_t bytes, const char* low, const char* high);

}  // namespace simt
