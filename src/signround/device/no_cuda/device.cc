// Built without CUDA.
#include "signround/base/error.h"
#include "signround/device/device.h"

namespace signround {
namespace {

[[noreturn]] void none() { fail(ErrorKind::kDevice, "device", why_no_cuda()); }

}  // namespace

namespace detail {
void bind_device(Device) { none(); }
}  // namespace detail

const char* why_no_cuda() noexcept {
  return "this program was built without CUDA; use --device cpu";
}
int cuda_device_count() noexcept { return 0; }
DeviceFacts device_facts(Device) { none(); }
void* device_allocate(Device, int64_t) { none(); }
Device auto_device() noexcept { return {}; }
void device_release(Device, void*, int64_t) noexcept {}
void* pinned_allocate(int64_t) { none(); }
void pinned_release(void*) noexcept {}
void copy_to_device(void*, const void*, int64_t) { none(); }
void copy_to_host(void*, const void*, int64_t) { none(); }
void copy_on_device(void*, const void*, int64_t) { none(); }
void copy_rows_on_device(void*, int64_t, const void*, int64_t, int64_t, int64_t) { none(); }
void zero_on_device(void*, int64_t) { none(); }
void synchronize() { none(); }
void set_blocking_launches(bool) {}

struct DeviceGraph::Impl {};
DeviceGraph::DeviceGraph() = default;
DeviceGraph::~DeviceGraph() = default;
DeviceGraph::DeviceGraph(DeviceGraph&&) noexcept = default;
DeviceGraph& DeviceGraph::operator=(DeviceGraph&&) noexcept = default;
bool DeviceGraph::recorded() const { return false; }
void DeviceGraph::record(const std::function<void()>&) { none(); }
void DeviceGraph::launch() { none(); }

struct DeviceTimer::Impl {};
DeviceTimer::DeviceTimer() = default;
DeviceTimer::~DeviceTimer() = default;
void DeviceTimer::start() { none(); }
double DeviceTimer::stop() { none(); }

}  // namespace signround
