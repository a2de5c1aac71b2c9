#pragma once

#include <gtest/gtest.h>

#include <string>

#include "signround/base/error.h"

namespace signround::testing {

// The call throws an Error of that kind whose text contains `text`.
template <class Call>
void expect_error(ErrorKind kind, const std::string& text, Call&& call) {
  try {
    call();
    ADD_FAILURE() << "nothing was thrown, expected an error with: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos)
        << "got: " << error.what() << "\nexpected: " << text;
  }
}

}  // namespace signround::testing
