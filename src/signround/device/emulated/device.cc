// A GPU that is none, for tests: its memory is the host's and its work is done at once.
#include "signround/device/device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "signround/base/error.h"

namespace signround {

namespace detail {
void count_device_bytes(int64_t bytes) noexcept;
void bind_device(Device device) {
  require(device.index == 0, "device", name_of(device), " was asked for, one GPU is emulated");
}
}  // namespace detail

const char* why_no_cuda() noexcept { return nullptr; }
int cuda_device_count() noexcept { return 1; }
DeviceFacts device_facts(Device) {
  return {"emulated", int64_t{8} << 30, int64_t{8} << 30, 8, 0, 4};
}
void* device_allocate(Device, int64_t bytes) {
  detail::count_device_bytes(bytes);
  void* data = std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256));
  if (data == nullptr) fail(ErrorKind::kMemory, "emulated", "no memory for ", bytes, " bytes");
  std::memset(data, 0, static_cast<size_t>(bytes));
  return data;
}
Device auto_device() noexcept { return {}; }
void device_release(Device, void* data, int64_t bytes) noexcept {
  detail::count_device_bytes(-bytes);
  std::free(data);
}
void* pinned_allocate(int64_t bytes) {
  detail::count_device_bytes(-bytes);  // it is not the device's
  return device_allocate({}, bytes);
}
void pinned_release(void* data) noexcept { std::free(data); }
void copy_to_device(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}
void copy_to_host(void* to, const void* from, int64_t bytes) { copy_to_device(to, from, bytes); }
void copy_on_device(void* to, const void* from, int64_t bytes) { copy_to_device(to, from, bytes); }
void copy_rows_on_device(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                         int64_t row_bytes, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    copy_to_device(static_cast<char*>(to) + r * to_pitch,
                   static_cast<const char*>(from) + r * from_pitch, row_bytes);
}
void zero_on_device(void* data, int64_t bytes) {
  if (bytes > 0) std::memset(data, 0, static_cast<size_t>(bytes));
}
void synchronize() {}
void set_blocking_launches(bool) {}

struct DeviceGraph::Impl {
  std::function<void()> work;
};
DeviceGraph::DeviceGraph() : impl_(std::make_unique<Impl>()) {}
DeviceGraph::~DeviceGraph() = default;
DeviceGraph::DeviceGraph(DeviceGraph&&) noexcept = default;
DeviceGraph& DeviceGraph::operator=(DeviceGraph&&) noexcept = default;
bool DeviceGraph::recorded() const { return static_cast<bool>(impl_->work); }
void DeviceGraph::record(const std::function<void()>& work) { impl_->work = work; }
void DeviceGraph::launch() { impl_->work(); }

struct DeviceTimer::Impl {
  std::chrono::steady_clock::time_point begin;
};
DeviceTimer::DeviceTimer() : impl_(std::make_unique<Impl>()) {}
DeviceTimer::~DeviceTimer() = default;
void DeviceTimer::start() { impl_->begin = std::chrono::steady_clock::now(); }
double DeviceTimer::stop() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - impl_->begin).count();
}

}  // namespace signround
