#pragma once

#include <filesystem>

namespace signround::testing {

// The repository's folder testdata/. A function, so that only one object knows where the checkout lies.
std::filesystem::path testdata();

}  // namespace signround::testing
