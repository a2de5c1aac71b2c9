#include "signround/tensor/buffer.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "signround/base/error.h"

namespace signround {
namespace {

constexpr int64_t kMapFrom = 1 << 20;  // from 1 MiB on: mmap, so that freed memory really goes back to the system

int64_t rounded(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

Buffer::Buffer(int64_t bytes, Device device) : bytes_(bytes), device_(device) {
  require(bytes >= 0, "buffer", "a buffer of ", bytes, " bytes was asked for");
  if (bytes == 0) return;
  if (device.kind != Device::Kind::kCpu) {
    data_ = device.is_cuda() ? device_allocate(device, bytes) : pinned_allocate(bytes);
    return;
  }
  if (bytes >= kMapFrom) {
    data_ = mmap(nullptr, static_cast<size_t>(rounded(bytes, 4096)), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
    if (data_ == MAP_FAILED) {
      data_ = nullptr;
    } else {
      madvise(data_, static_cast<size_t>(rounded(bytes, 4096)), MADV_HUGEPAGE);
    }
  } else {
    data_ = ::operator new(static_cast<size_t>(rounded(bytes, 64)), std::align_val_t(64), std::nothrow);
    if (data_) std::memset(data_, 0, static_cast<size_t>(bytes));
  }
  if (!data_) fail(ErrorKind::kMemory, "buffer", "no memory for ", bytes, " bytes");
}

Buffer::~Buffer() {
  if (!data_) return;
  if (device_.is_cuda())
    device_release(device_, data_, bytes_);
  else if (device_.kind == Device::Kind::kPinned)
    pinned_release(data_);
  else if (bytes_ >= kMapFrom)
    munmap(data_, static_cast<size_t>(rounded(bytes_, 4096)));
  else
    ::operator delete(data_, std::align_val_t(64));
}

}  // namespace signround
