#include "signround/kernels/dispatch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>

namespace signround {
namespace {

struct Row {
  std::string_view name;
  const char* (*why_not)();
};
const char* never() { return "it is a test"; }
constexpr Row kRows[] = {{"onednn", never}, {"hwy", runs_always}, {"ref", runs_always}};

class Force {
 public:
  explicit Force(const char* name) {
    const char* old = std::getenv("SIGNROUND_FORCE_KERNEL");
    had_ = old != nullptr;
    if (had_) old_ = old;
    setenv("SIGNROUND_FORCE_KERNEL", name, 1);
  }
  ~Force() {
    had_ ? setenv("SIGNROUND_FORCE_KERNEL", old_.c_str(), 1) : unsetenv("SIGNROUND_FORCE_KERNEL");
  }

 private:
  bool had_;
  std::string old_;
};

TEST(Dispatch, TakesTheFirstRowThatCanRun) {
  Force force("");
  EXPECT_EQ(pick_kernel("test", kRows).name, "hwy");
}

TEST(Dispatch, TakesTheForcedRow) {
  Force force("ref");
  EXPECT_EQ(pick_kernel("test", kRows).name, "ref");
  EXPECT_TRUE(kernel_forced("ref"));
  EXPECT_FALSE(kernel_forced("hwy"));
}

TEST(Dispatch, IgnoresAForcedNameThatOnlyOtherTablesHave) {
  Force force("cuda");
  EXPECT_EQ(pick_kernel("test", kRows).name, "hwy");
}

TEST(Dispatch, FailsWhereTheForcedRowCannotRun) {
  Force force("onednn");
  try {
    pick_kernel("test", kRows);
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("it is a test"), std::string::npos) << e.what();
  }
}

TEST(Dispatch, FailsForANameThatNoTableHas) {
  Force force("avx9");
  try {
    pick_kernel("test", kRows);
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("avx9"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("hwy"), std::string::npos) << e.what();
  }
}

TEST(Dispatch, VisitsEachInstructionSetOnce) {
  std::set<std::string> seen;
  int calls = 0;
  for_each_hwy_target([&](const char* target) {
    ++calls;
    seen.insert(target);
  });
  EXPECT_GE(calls, 1);
  EXPECT_EQ(static_cast<size_t>(calls), seen.size());
}

}  // namespace
}  // namespace signround
