// Small files that are either the old one or the new one, whatever happens in between.
#pragma once

#include <filesystem>
#include <string_view>

namespace signround {

// Writes `path`.tmp beside it, brings it to disk, renames it to `path` and brings the folder to
// disk. On failure (Error{kIo} with path, cause and size) the old file is untouched and the new one
// is removed.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);
// The same with the bytes of the file `from`, which are never in memory all at once.
void copy_file_atomically(const std::filesystem::path& from, const std::filesystem::path& path);

}  // namespace signround
