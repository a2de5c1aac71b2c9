// tensor_hashes MODEL: a line for each tensor of a checkpoint as it lies on disk: name, type,
// shape, hash of its bytes.
#include <iostream>

#include "signround/base/hash.h"
#include "signround/io/checkpoint.h"

int main(int argc, char** argv) {
  if (argc != 2) return std::cerr << "usage: tensor_hashes MODEL\n", 2;
  try {
    const auto model = signround::open_hf_checkpoint(argv[1]);
    std::vector<std::byte> scratch;
    for (const auto& info : model->tensors())
      std::cout << info.name << ' ' << signround::name_of(info.dtype) << ' '
                << signround::shape_text(info.shape) << ' '
                << signround::hex(signround::xxh3(model->bytes(info.name, scratch))) << '\n';
  } catch (const std::exception& error) {
    std::cerr << "tensor_hashes: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
