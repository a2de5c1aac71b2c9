#include "signround/kernels/dispatch.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace signround {
namespace {

constexpr std::array<std::string_view, 6> kKnown = {"cuda",   "amx", "avx512",
                                                    "onednn", "hwy", "ref"};

}  // namespace

std::span<const std::string_view> known_kernels() { return kKnown; }

std::string_view forced_kernel() {
  const char* value = std::getenv("SIGNROUND_FORCE_KERNEL");
  if (value == nullptr || *value == 0) return {};
  const std::string_view name(value);
  if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) {
    std::string list;
    for (std::string_view known : kKnown) list.append(list.empty() ? "" : ", ").append(known);
    fail(ErrorKind::kInvalidArgument, "kernels", "SIGNROUND_FORCE_KERNEL is \"", name,
         "\", expected one of ", list);
  }
  return name;
}

void detail::fail_forced(const char* op, std::string_view name, const char* why_not) {
  fail(ErrorKind::kUnsupported, op, "SIGNROUND_FORCE_KERNEL asks for \"", name,
       "\", which cannot run here: ", why_not);
}

void detail::fail_no_kernel(const char* op) {
  fail(ErrorKind::kInternal, op,
       "no kernel of the table can run, expected the last one to run everywhere");
}

void for_each_hwy_target(void (*body)(const char*, void*), void* context) {
  struct Restore {
    ~Restore() {
      hwy::SetSupportedTargetsForTest(0);
      hwy::GetChosenTarget().DeInit();
    }
  } restore;
  hwy::SetSupportedTargetsForTest(0);
  int64_t left = hwy::SupportedTargets() & HWY_TARGETS;
  while (left != 0) {
    const int64_t target = left & -left;
    left &= left - 1;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    body(hwy::TargetName(target), context);
  }
}

}  // namespace signround
