// Choice among the implementations of one operation. Each operation has an ordered table of rows,
// best first, the scalar reference ("ref") last; a row says why it cannot run here.
// SIGNROUND_FORCE_KERNEL names one for all tables.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "signround/base/error.h"

namespace signround {

// Names that any table of this program may use; a forced name outside it is a typing error, so
// pick_kernel fails.
std::span<const std::string_view> known_kernels();

// The value of SIGNROUND_FORCE_KERNEL; empty where it is not set. Read at each call. Fails with
// kInvalidArgument where the value is in no table.
std::string_view forced_kernel();
inline bool kernel_forced(std::string_view name) { return forced_kernel() == name; }

// why_not of rows that run everywhere.
inline const char* runs_always() { return nullptr; }

namespace detail {
[[noreturn]] void fail_forced(const char* op, std::string_view name, const char* why_not);
[[noreturn]] void fail_no_kernel(const char* op);
}  // namespace detail

// The row to run: the forced one where the table has it, else the first that can run. A Row has
// `name` (std::string_view) and `why_not` (const char* (*)(): nullptr = can run here, else the
// reason). Fails with kUnsupported where the forced row cannot run: never a silent fallback.
template <class Row, size_t kRows>
const Row& pick_kernel(const char* op, const Row (&rows)[kRows]) {
  const std::string_view forced = forced_kernel();
  if (!forced.empty()) {
    for (const Row& row : rows) {
      if (row.name != forced) continue;
      if (const char* reason = row.why_not()) detail::fail_forced(op, forced, reason);
      return row;
    }
  }
  for (const Row& row : rows)
    if (row.why_not() == nullptr) return row;
  detail::fail_no_kernel(op);
}

// For tests: calls body(target name) once for each instruction set that Highway code was built for
// and that this CPU has, with HWY_DYNAMIC_DISPATCH bound to it; the usual choice is back
// afterwards. Not thread-safe.
void for_each_hwy_target(void (*body)(const char* target, void* context), void* context);
template <class Body>
void for_each_hwy_target(Body&& body) {
  using Function = std::remove_reference_t<Body>;
  for_each_hwy_target(
      [](const char* target, void* context) { (*static_cast<Function*>(context))(target); }, &body);
}

}  // namespace signround
