// How much memory this process holds.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <fstream>

namespace signround::testing {

inline int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace signround::testing
