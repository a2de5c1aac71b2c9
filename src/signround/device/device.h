// Where memory lies and operations run: the CPU, or a GPU with one stream of work. Built with CUDA,
// device/cuda defines what is declared here; for tests without a GPU, device/emulated; else
// device/no_cuda says why not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace signround {

// kCpu is host memory; kPinned is host memory that a GPU reads and writes without a stop on the way.
// Index is the number of the accelerator (0 on the CPU).
struct Device {
  enum class Kind : uint8_t { kCpu, kCuda, kPinned } kind = Kind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
  bool is_cuda() const { return kind == Kind::kCuda; }
};
std::string name_of(Device device);  // "cpu", "cuda:0"

// nullptr: CUDA kernels can run here; else the reason.
const char* why_no_cuda() noexcept;
Device auto_device() noexcept;  // a GPU if there is a real one
// "cpu", "auto", "cuda", "cuda:1". Error{kInvalidArgument} for other texts, kDevice for a GPU that
// is not there.
Device parse_device(const std::string& text);
int cuda_device_count() noexcept;

struct DeviceFacts {
  std::string name;
  int64_t total_bytes = 0, free_bytes = 0;
  int major = 0, minor = 0, multiprocessors = 0;
};
DeviceFacts device_facts(Device device);

// What operations of the calling thread compute on; the rows they are given lie there. A GPU's work
// is queued in order, and nobody waits for it but synchronize() and copy_to_host().
Device current_device() noexcept;
inline bool on_cuda() noexcept { return current_device().is_cuda(); }

class DeviceScope {
 public:
  explicit DeviceScope(Device device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  Device before_;
};

// Zeroed memory of a GPU, aligned to 256. Error{kMemory} where there is none, with the size.
void* device_allocate(Device device, int64_t bytes);
void device_release(Device device, void* data, int64_t bytes) noexcept;
// Most that was allocated at a time on all devices, since the last call of the second one.
int64_t device_peak_bytes() noexcept;
void reset_device_peak() noexcept;
// Zeroed; a Buffer of kPinned.
void* pinned_allocate(int64_t bytes);
void pinned_release(void* data) noexcept;

// On the current device, a GPU, in the order of its stream. What copy_to_device reads from pinned
// memory must stay as it is until synchronize().
void copy_to_device(void* to, const void* from, int64_t bytes);
void copy_to_host(void* to, const void* from, int64_t bytes);  // waits
void copy_on_device(void* to, const void* from, int64_t bytes);
void copy_rows_on_device(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                         int64_t row_bytes, int64_t rows);
void zero_on_device(void* data, int64_t bytes);
void synchronize();  // waits until all is done; Error{kDevice} where something failed

// Either of the two, as the current device asks.
void copy_from_current(void* host, const void* data, int64_t bytes);
void copy_to_current(void* data, const void* host, int64_t bytes);

// A sequence of work that was recorded once and is queued as a whole.
class DeviceGraph {
 public:
  DeviceGraph();
  ~DeviceGraph();
  DeviceGraph(DeviceGraph&&) noexcept;
  DeviceGraph& operator=(DeviceGraph&&) noexcept;
  bool recorded() const;
  // What `work` queues is recorded, not run. It must not wait for the device.
  void record(const std::function<void()>& work);
  void launch();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Seconds between two places of the device's stream.
class DeviceTimer {
 public:
  DeviceTimer();
  ~DeviceTimer();
  void start();
  double stop();  // waits

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// For tests: every launch waits until it is done.
void set_blocking_launches(bool blocking);

}  // namespace signround
