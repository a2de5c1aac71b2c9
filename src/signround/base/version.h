#pragma once

namespace signround {
inline constexpr const char* kVersion = "0.1.0";
}
