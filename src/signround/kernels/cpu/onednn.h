// What the kernels that call oneDNN share.
#pragma once

#include <dnnl.hpp>

namespace signround::kernels {

inline const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

}  // namespace signround::kernels
