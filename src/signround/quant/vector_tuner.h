// Learns a vector beside the rounded weights of a block: the weight of a norm, or the bias of a
// linear layer, by the rule of AutoRound's enable_norm_bias_tuning (auto_round 0.16.1,
// data_type/int.py, quant_tensor_asym_wo_round: a grid of 4 bits, without rounding to it). With
// lo = min(0, min w), hi = max(0, max w) and s = (hi - lo) / 15, rounded to f16, at least 1e-5:
//   value = clamp(w + s v, lo, lo + 15 s)
// The offsets v begin at 0 and move by a fixed step against the sign of their gradient, as those of
// rounded weights do; so no value leaves the range that the vector had.
#pragma once

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

namespace signround {

struct VectorGrid {
  float lo = 0, step = 0;
  float hi() const { return lo + 15 * step; }
};
VectorGrid vector_grid(std::span<const float> w);

// T is float, double or std::complex<double>. d value / d v is grid.step where nothing is clamped,
// and 0 elsewhere.
template <class T>
T vector_value(T w, T v, const VectorGrid& grid) {
  const T moved = w + T(grid.step) * v;
  if (std::real(moved) < std::real(T(grid.lo))) return T(grid.lo);
  if (std::real(moved) > std::real(T(grid.hi()))) return T(grid.hi());
  return moved;
}
template <class T>
T vector_value_bwd(T w, T v, const VectorGrid& grid, T d_value) {
  const T moved = w + T(grid.step) * v;
  const bool clamped =
      std::real(moved) < std::real(T(grid.lo)) || std::real(moved) > std::real(T(grid.hi()));
  return clamped ? T(0) : d_value * T(grid.step);
}

class VectorTuner {
 public:
  // lr: first step of v. momentum: 0, the sign of the gradient; m, that of m * buffer + gradient.
  VectorTuner(std::span<const float> w, double lr, double momentum);

  void write(std::span<float> value) const;
  // gradient: of the loss by the value. decay: of lr, as in WeightSlot::step.
  void step(std::span<const float> gradient, double decay);
  void restart();  // back to the values at the start
  void keep_best();
  // Under the best offsets, or those at the start if keep_best was never called.
  std::vector<float> finish() const;
  const std::vector<float>& offsets() const { return v_; }

  static int64_t bytes(int64_t size, double momentum);

 private:
  std::vector<float> w_, v_, best_, buffer_;  // buffer_: empty without momentum
  VectorGrid grid_;
  double lr_, momentum_;
};

}  // namespace signround
