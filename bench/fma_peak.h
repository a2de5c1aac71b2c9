// What the multipliers of this machine were measured to do, to which rates are compared.
#pragma once

namespace signround {

// f32 operations per second (two per fused multiply-add) of num_threads() threads that do nothing
// else, best of several short runs. Takes about 0.2 s.
double fma_peak();

}  // namespace signround
