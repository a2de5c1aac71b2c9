// The flags that make QuantizeOptions: its fields, shorthands, and AutoRound's spellings.
#pragma once

#include <string>
#include <vector>

#include "signround/cli/flags.h"
#include "signround/pipeline/options.h"

namespace signround {

// MODEL as the first argument or as --model; every field of `options`; --asym and the like. Flags
// of AutoRound 0.16 (auto_round/cli/parser.py) mean what they mean there, or are answered with why
// they have no meaning here. `notes` collects what was given and changes nothing. All three are
// referred to until `flags` has parsed.
void add_quantize_flags(Flags& flags, std::string& model, QuantizeOptions& options,
                        std::vector<std::string>& notes);

// After parsing: reports everything that is wrong with the options.
void check_quantize_flags(Flags& flags, const QuantizeOptions& options);

}  // namespace signround
