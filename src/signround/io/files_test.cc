#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "signround/io/atomic_file.h"
#include "signround/io/lock_file.h"
#include "signround/io/mapped_file.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::TempDir;

TEST(MappedFile, ShowsTheFilesBytesAlsoAfterRelease) {
  const TempDir dir;
  std::string text(20'000, 'x');
  text[9'999] = 'y';
  testing::write_file(dir / "a", text);
  const MappedFile file(dir / "a");
  ASSERT_EQ(file.size(), 20'000);
  EXPECT_EQ(static_cast<char>(file.bytes()[9'999]), 'y');
  file.release(5'000, 10'000);
  file.release(-5, 1 << 30);  // more than there is
  EXPECT_EQ(static_cast<char>(file.bytes()[9'999]), 'y');
}

TEST(MappedFile, AnEmptyFileIsEmpty) {
  const TempDir dir;
  testing::write_file(dir / "a", "");
  const MappedFile file(dir / "a");
  EXPECT_TRUE(file.bytes().empty());
  file.release(0, 10);
}

TEST(MappedFile, RefusesWhatIsNoRegularFile) {
  const TempDir dir;
  expect_error(ErrorKind::kIo, "No such file", [&] { MappedFile(dir / "nothing"); });
  expect_error(ErrorKind::kInvalidArgument, "not a regular file",
               [&] { MappedFile file(dir.path()); });
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error(ErrorKind::kInvalidArgument, "not a regular file",
               [&] { MappedFile(dir / "pipe"); });  // no hang
}

TEST(AtomicFile, ReplacesTheOldFileAndLeavesNothingBeside) {
  const TempDir dir;
  testing::write_file(dir / "config.json", "old");
  write_file_atomically(dir / "config.json", "new");
  EXPECT_EQ(testing::read_file(dir / "config.json"), "new");
  EXPECT_FALSE(std::filesystem::exists(dir / "config.json.tmp"));
}

TEST(AtomicFile, AFailureNamesThePathAndTheSizeAndKeepsTheOldFile) {
  const TempDir dir;
  expect_error(ErrorKind::kIo, "file of 3 bytes",
               [&] { write_file_atomically(dir / "no" / "file", "abc"); });
  std::filesystem::create_directory(dir / "folder");
  testing::write_file(dir / "folder" / "inside", "x");
  expect_error(ErrorKind::kIo, "rename", [&] { write_file_atomically(dir / "folder", "abc"); });
  EXPECT_FALSE(std::filesystem::exists(dir / "folder.tmp"));
  EXPECT_EQ(testing::read_file(dir / "folder" / "inside"), "x");
}

TEST(AtomicFile, AFullDiskIsAnErrorWithTheSizesAndTheCause) {
  const FileDescriptor full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full.is_open());
  const std::string text(12'345, 'x');
  expect_error(ErrorKind::kIo,
               "cannot write 12345 bytes at offset 0 of /dev/full (0 were written): No space left",
               [&] { write_fully("test", full, "/dev/full", std::as_bytes(std::span(text)), 0); });
}

TEST(LockFile, ASecondRunIsToldWhoHoldsTheLock) {
  const TempDir dir;
  const LockFile lock(dir / ".lock");
  expect_error(ErrorKind::kBusy,
               (dir / ".lock").string() + " is held by process " + std::to_string(getpid()),
               [&] { LockFile second(dir / ".lock"); });
}

TEST(LockFile, IsFreeAndGoneAfterItsHolder) {
  const TempDir dir;
  { const LockFile lock(dir / ".lock"); }
  EXPECT_FALSE(std::filesystem::exists(dir / ".lock"));
  const LockFile again(dir / ".lock");
  EXPECT_EQ(testing::read_file(dir / ".lock"), std::to_string(getpid()) + "\n");
}

TEST(LockFile, IsFreeAfterItsHolderWasKilled) {
  const TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    new LockFile(dir / ".lock");
    _exit(0);  // no destructor, as with SIGKILL
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  ASSERT_EQ(testing::read_file(dir / ".lock"), std::to_string(child) + "\n");
  const LockFile lock(dir / ".lock");
  EXPECT_EQ(testing::read_file(dir / ".lock"), std::to_string(getpid()) + "\n");
}

TEST(LockFile, AFolderThatIsNotThereIsAnIoError) {
  const TempDir dir;
  expect_error(ErrorKind::kIo, "No such file", [&] { LockFile lock(dir / "no" / ".lock"); });
}

}  // namespace
}  // namespace signround
