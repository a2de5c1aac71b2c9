// A GGUF file as a Hugging Face checkpoint: names, config.json, row order and tokenizer files are
// translated.
#pragma once

#include <filesystem>
#include <memory>

#include "signround/io/checkpoint.h"

namespace signround {

// For the architectures llama (also Mistral, which is stored as llama), qwen2 and qwen3; another
// one is Error{kUnsupported}. Tensors are presented in one dtype: F32 if all of the file is F32,
// F16 if it is F16 and F32, else BF16: blocks are decoded to f32 and rounded. Decoding happens row
// by row when it is asked for.
std::unique_ptr<Checkpoint> open_gguf_checkpoint(const std::filesystem::path& path);

// A GGUF file where `path` is a file, else a Hugging Face folder.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path);

}  // namespace signround
