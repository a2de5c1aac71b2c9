#pragma once

namespace signround::kernels {

// What multiplies bf16 values and 8-bit integers on x86 CPUs: the tile registers of AMX, or the
// vectors of AVX-512.
enum class PanelUnit { kAmx, kAvx512 };

}  // namespace signround::kernels
