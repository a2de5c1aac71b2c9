// For test programs that hand their own memory to kernels of a GPU: everything that `new` gives is
// memory that the GPU reads and writes as well. Small sizes come from a pool that is pinned once;
// freed pieces wait in lists by size.
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>

#include "signround/device/device.h"

namespace {

constexpr size_t kPool = size_t{1} << 30, kClasses = 31;

struct Pool {
  std::mutex mutex;
  char *begin = nullptr, *next = nullptr;
  void* free_of_class[kClasses] = {};
  bool tried = false;
};
Pool pool;
thread_local bool inside = false;

constexpr size_t kHeader = 64;  // in front of a piece: its class

size_t class_of(size_t bytes) {
  size_t c = 7;
  while ((size_t{1} << c) < bytes) ++c;
  return c;
}

// A piece of the pool; null: there is no pool, or it is used up.
char* piece(size_t bytes) {
  const size_t c = class_of(bytes);
  if (inside || c >= kClasses) return nullptr;
  inside = true;
  char* data = nullptr;
  {
    const std::lock_guard lock(pool.mutex);
    if (!pool.tried) {
      pool.tried = true;
      if (signround::why_no_cuda() == nullptr) {
        pool.begin = static_cast<char*>(signround::pinned_allocate(static_cast<int64_t>(kPool)));
        pool.next = pool.begin;
      }
    }
    if (pool.free_of_class[c] != nullptr) {
      data = static_cast<char*>(pool.free_of_class[c]);
      pool.free_of_class[c] = *reinterpret_cast<void**>(data);
    } else if (pool.begin != nullptr && pool.next + (size_t{1} << c) <= pool.begin + kPool) {
      data = pool.next;
      pool.next += size_t{1} << c;
    }
  }
  inside = false;
  if (data != nullptr) *reinterpret_cast<size_t*>(data) = c;
  return data;
}

void* take(size_t bytes) {
  if (char* data = piece(bytes + kHeader)) return data + kHeader;
  return std::aligned_alloc(64, (bytes + 64) / 64 * 64);
}

void give(void* data) {
  auto* p = static_cast<char*>(data);
  if (pool.begin == nullptr || p < pool.begin || p >= pool.begin + kPool) return std::free(data);
  p -= kHeader;
  const std::lock_guard lock(pool.mutex);
  const size_t c = *reinterpret_cast<size_t*>(p);
  *reinterpret_cast<void**>(p) = pool.free_of_class[c];
  pool.free_of_class[c] = p;
}

}  // namespace

void* operator new(size_t bytes) {
  if (void* data = take(bytes)) return data;
  throw std::bad_alloc();
}
void* operator new[](size_t bytes) { return operator new(bytes); }
void operator delete(void* data) noexcept { give(data); }
void operator delete[](void* data) noexcept { give(data); }
void operator delete(void* data, size_t) noexcept { give(data); }
void operator delete[](void* data, size_t) noexcept { give(data); }
void* operator new(size_t bytes, std::align_val_t, const std::nothrow_t&) noexcept {
  return take(bytes);
}
void operator delete(void* data, std::align_val_t) noexcept { give(data); }
