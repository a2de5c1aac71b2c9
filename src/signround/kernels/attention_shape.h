// What an attention is, apart from its data: sizes, mask, scale. Shared by all its kernels.
#pragma once

#include <algorithm>
#include <cstdint>

namespace signround {

struct AttentionShape {
  int64_t batch = 0, q_len = 0, kv_len = 0;       // sequences; tokens of each on either side
  int64_t heads = 0, kv_heads = 0, head_dim = 0;  // query head h reads kv head h / group()
  float scale = 0;                                // of q.k, mostly head_dim^(-1/2)
  bool causal = true;                             // query i stands at position kv_len - q_len + i
  int64_t window = 0;          // only the last `window` keys; 0 = all; needs causal
  float softcap = 0;           // score = softcap * tanh(score / softcap); 0 = none
  bool bf16_products = false;  // q, k, v, d_y, the weights of the keys and their gradients may be
                               // rounded to bf16 before they are multiplied

  int64_t group() const { return heads / kv_heads; }
  // Query i attends to the keys [first_key(i), end_key(i)). Neither ever falls as i grows.
  int64_t end_key(int64_t i) const { return causal ? kv_len - q_len + i + 1 : kv_len; }
  int64_t first_key(int64_t i) const {
    return window > 0 ? std::max(int64_t{0}, end_key(i) - window) : 0;
  }
};

}  // namespace signround
