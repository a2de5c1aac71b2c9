// Memory that waits on disk: a file of fixed size without a name, which is gone when it is closed,
// also by a kill. Read and written by pieces and never mapped, so that none of it counts as this
// process's memory; the system keeps what it has room for.
#pragma once

#include "signround/io/file.h"

namespace signround {

class ScratchFile {
 public:
  // In `folder`, with its space reserved. Error{kIo} names folder and bytes where there is too
  // little. A kill in the moment before the name is removed leaves an empty file that the next one
  // replaces.
  ScratchFile(const std::filesystem::path& folder, int64_t bytes);
  void read(std::span<std::byte> bytes, int64_t offset) const;
  void write(std::span<const std::byte> bytes, int64_t offset);

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
};

}  // namespace signround
