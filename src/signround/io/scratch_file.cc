#include "signround/io/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace signround {
namespace {

constexpr const char* kWhere = "scratch file";

}  // namespace

ScratchFile::ScratchFile(const std::filesystem::path& folder, int64_t bytes)
    : path_(folder / "scratch.tmp"),
      file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)) {
  if (!file_.is_open()) fail_io(kWhere, "create", path_, errno);
  if (unlink(path_.c_str()) != 0) fail_io(kWhere, "remove the name of", path_, errno);
  reserve_space(kWhere, file_, path_, bytes);
}

void ScratchFile::read(std::span<std::byte> bytes, int64_t offset) const {
  read_fully(kWhere, file_, path_, bytes, offset);
}

void ScratchFile::write(std::span<const std::byte> bytes, int64_t offset) {
  write_fully(kWhere, file_, path_, bytes, offset);
}

}  // namespace signround
