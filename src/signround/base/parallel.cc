#include "signround/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <mutex>

namespace signround {
namespace {

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return omp_get_num_procs();
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

int g_threads = 0;

}  // namespace

int num_threads() {
  if (omp_in_parallel()) return 1;
  if (g_threads == 0) set_num_threads(0);
  return g_threads;
}

void set_num_threads(int n) {
  g_threads = n > 0 ? n : available_cpus();
  omp_set_num_threads(g_threads);
  omp_set_dynamic(0);
}

void detail::parallel_run(int64_t chunks, void (*run)(void*, int64_t), void* context) {
  std::exception_ptr error;
  std::mutex mutex;
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(chunks))
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    try {
      run(context, chunk);
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace signround
