#include "signround/testing/testdata.h"

namespace signround::testing {

std::filesystem::path testdata() { return SIGNROUND_TESTDATA; }

}  // namespace signround::testing
