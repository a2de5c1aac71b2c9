// The CUDA runtime: one stream of work for each GPU.
#include <cuda_runtime.h>

#include <array>
#include <mutex>

#include "signround/base/error.h"
#include "signround/device/cuda/stream.h"
#include "signround/device/device.h"

namespace signround {
namespace {

constexpr int kMostDevices = 64;
bool blocking = false;

struct Streams {
  std::mutex mutex;
  std::array<cudaStream_t, kMostDevices> of_device{};
};
Streams& streams() {
  static Streams all;
  return all;
}

void check(cudaError_t status, const char* what) { cuda::check(status, what); }

}  // namespace

namespace cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail(status == cudaErrorMemoryAllocation ? ErrorKind::kMemory : ErrorKind::kDevice, "cuda", what,
       ": ", cudaGetErrorString(status));
}

cudaStream_t stream() {
  const Device device = current_device();
  require(device.is_cuda(), "cuda", "internal: work for a GPU outside of its scope");
  return streams().of_device[static_cast<size_t>(device.index)];
}

void launched(const char* what) {
  check(cudaGetLastError(), what);
  if (blocking) check(cudaStreamSynchronize(stream()), what);
}

}  // namespace cuda

namespace detail {
void count_device_bytes(int64_t bytes) noexcept;
void bind_device(Device device) {
  require(device.index >= 0 && device.index < cuda_device_count(), "device", name_of(device),
          " was asked for, this machine has ", cuda_device_count(), " GPUs that this program can use");
  check(cudaSetDevice(device.index), "cudaSetDevice");
  const std::lock_guard lock(streams().mutex);
  cudaStream_t& stream = streams().of_device[static_cast<size_t>(device.index)];
  if (stream == nullptr)
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
}
}  // namespace detail

const char* why_no_cuda() noexcept {
  static const char* reason = []() -> const char* {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
      cudaGetLastError();
      return "no GPU that this program can use was found (is the NVIDIA driver there?); use "
             "--device cpu";
    }
    cudaDeviceProp facts;
    if (cudaGetDeviceProperties(&facts, 0) != cudaSuccess || facts.major < 8)
      return "the GPU's compute capability is below 8.0; use --device cpu";
    return nullptr;
  }();
  return reason;
}

int cuda_device_count() noexcept {
  if (why_no_cuda() != nullptr) return 0;
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? std::min(count, kMostDevices) : 0;
}

DeviceFacts device_facts(Device device) {
  const DeviceScope scope(device);
  cudaDeviceProp facts;
  check(cudaGetDeviceProperties(&facts, device.index), "cudaGetDeviceProperties");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return {facts.name,  static_cast<int64_t>(total), static_cast<int64_t>(free),
          facts.major, facts.minor,                 facts.multiProcessorCount};
}

void* device_allocate(Device device, int64_t bytes) {
  const DeviceScope scope(device);
  void* data = nullptr;
  if (cudaMalloc(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    fail(ErrorKind::kMemory, "cuda", "no memory for ", bytes, " bytes on ", name_of(device), ": ",
         device_facts(device).free_bytes, " are free");
  }
  detail::count_device_bytes(bytes);
  zero_on_device(data, bytes);
  return data;
}

Device auto_device() noexcept {
  return cuda_device_count() > 0 ? Device{Device::Kind::kCuda, 0} : Device{};
}

void device_release(Device device, void* data, int64_t bytes) noexcept {
  detail::count_device_bytes(-bytes);
  const Device before = current_device();
  if (before != device) cudaSetDevice(device.index);
  cudaFree(data);
  if (before.is_cuda() && before != device) cudaSetDevice(before.index);
}

void* pinned_allocate(int64_t bytes) {
  void* data = nullptr;
  if (cudaMallocHost(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    fail(ErrorKind::kMemory, "cuda", "no pinned memory for ", bytes, " bytes");
  }
  std::fill_n(static_cast<char*>(data), bytes, char{0});
  return data;
}

void pinned_release(void* data) noexcept { cudaFreeHost(data); }

void copy_to_device(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                        cuda::stream()),
        "copy to the GPU");
}
void copy_to_host(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                        cuda::stream()),
        "copy from the GPU");
  synchronize();
}
void copy_on_device(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                        cuda::stream()),
        "copy on the GPU");
}
void copy_rows_on_device(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                         int64_t row_bytes, int64_t rows) {
  check(cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from, static_cast<size_t>(from_pitch),
                          static_cast<size_t>(row_bytes), static_cast<size_t>(rows),
                          cudaMemcpyDeviceToDevice, cuda::stream()),
        "copy rows on the GPU");
}
void zero_on_device(void* data, int64_t bytes) {
  check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), cuda::stream()), "zero on the GPU");
}
void synchronize() { check(cudaStreamSynchronize(cuda::stream()), "work on the GPU"); }

void set_blocking_launches(bool value) { blocking = value; }

struct DeviceGraph::Impl {
  cudaGraphExec_t exec = nullptr;
  ~Impl() {
    if (exec != nullptr) cudaGraphExecDestroy(exec);
  }
};
DeviceGraph::DeviceGraph() : impl_(std::make_unique<Impl>()) {}
DeviceGraph::~DeviceGraph() = default;
DeviceGraph::DeviceGraph(DeviceGraph&&) noexcept = default;
DeviceGraph& DeviceGraph::operator=(DeviceGraph&&) noexcept = default;
bool DeviceGraph::recorded() const { return impl_->exec != nullptr; }

void DeviceGraph::record(const std::function<void()>& work) {
  impl_ = std::make_unique<Impl>();
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(cuda::stream(), cudaStreamCaptureModeThreadLocal), "begin capture");
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(cuda::stream(), &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(cuda::stream(), &graph), "end capture");
  const cudaError_t status = cudaGraphInstantiate(&impl_->exec, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
}

void DeviceGraph::launch() {
  require(recorded(), "cuda", "internal: a graph that was not recorded");
  check(cudaGraphLaunch(impl_->exec, cuda::stream()), "cudaGraphLaunch");
  if (blocking) synchronize();
}

struct DeviceTimer::Impl {
  cudaEvent_t begin = nullptr, end = nullptr;
};
DeviceTimer::DeviceTimer() : impl_(std::make_unique<Impl>()) {
  check(cudaEventCreate(&impl_->begin), "cudaEventCreate");
  check(cudaEventCreate(&impl_->end), "cudaEventCreate");
}
DeviceTimer::~DeviceTimer() {
  cudaEventDestroy(impl_->begin);
  cudaEventDestroy(impl_->end);
}
void DeviceTimer::start() { check(cudaEventRecord(impl_->begin, cuda::stream()), "event"); }
double DeviceTimer::stop() {
  check(cudaEventRecord(impl_->end, cuda::stream()), "event");
  check(cudaEventSynchronize(impl_->end), "event");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, impl_->begin, impl_->end), "event");
  return ms / 1e3;
}

}  // namespace signround
