#include "signround/device/device.h"

#include <atomic>
#include <charconv>
#include <cstring>

#include "signround/base/error.h"

namespace signround {
namespace {
thread_local Device current;
std::atomic<int64_t> allocated{0}, peak{0};
}  // namespace

std::string name_of(Device device) {
  return device.is_cuda() ? "cuda:" + std::to_string(device.index) : "cpu";
}

Device current_device() noexcept { return current; }

namespace detail {

void bind_device(Device device);

void count_device_bytes(int64_t bytes) noexcept {
  const int64_t now = allocated += bytes;
  int64_t most = peak;
  while (now > most && !peak.compare_exchange_weak(most, now)) {
  }
}

}  // namespace detail

int64_t device_peak_bytes() noexcept { return peak; }
void reset_device_peak() noexcept { peak = allocated.load(); }

Device parse_device(const std::string& text) {
  if (text == "cpu") return {};
  if (text == "auto") return auto_device();
  int index = 0;
  const char* end = text.data() + text.size();
  const bool numbered = text.starts_with("cuda:");
  const auto parsed = std::from_chars(text.data() + std::min<size_t>(text.size(), 5), end, index);
  if (text != "cuda" && (!numbered || parsed.ec != std::errc() || parsed.ptr != end))
    fail(ErrorKind::kInvalidArgument, "device", "'", text, "' is none of cpu, cuda, cuda:N, auto");
  if (const char* reason = why_no_cuda()) fail(ErrorKind::kDevice, "device", reason);
  if (index < 0 || index >= cuda_device_count())
    fail(ErrorKind::kDevice, "device", text, " was asked for, this machine has ",
         cuda_device_count(), " GPUs that this program can use");
  return {Device::Kind::kCuda, index};
}

DeviceScope::DeviceScope(Device device) : before_(current) {
  if (device.is_cuda()) detail::bind_device(device);
  current = device;
}

DeviceScope::~DeviceScope() {
  current = before_;
  if (current.is_cuda()) detail::bind_device(current);
}

void copy_from_current(void* host, const void* data, int64_t bytes) {
  if (on_cuda())
    copy_to_host(host, data, bytes);
  else
    std::memcpy(host, data, static_cast<size_t>(bytes));
}

void copy_to_current(void* data, const void* host, int64_t bytes) {
  if (on_cuda())
    copy_to_device(data, host, bytes);
  else
    std::memcpy(data, host, static_cast<size_t>(bytes));
}

}  // namespace signround
