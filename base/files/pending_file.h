// PendingFile: a file written beside its final name and renamed when it is complete.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace ratplus {

/// Owns `.NAME.partial` beside NAME. commit() makes its bytes durable and gives it its name; destroyed before
/// that, the partial file is removed, so that a reader never meets half a file.
class PendingFile {
 public:
  /// Messages name `shown_as` instead of the final name if it is given (a file of a directory that is itself
  /// to be renamed).
  explicit PendingFile(std::filesystem::path final_name, std::filesystem::path shown_as = {});
  ~PendingFile();
  PendingFile(PendingFile&& other) noexcept;
  PendingFile& operator=(PendingFile&& other) noexcept;

  /// Where to write.
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& final_name() const { return final_; }
  /// fsync, rename, fsync of the directory. The writer must have closed the file. Throws Error naming the
  /// file, also where a stream has the final name.
  void commit();

 private:
  void discard() noexcept;

  std::filesystem::path final_;
  std::filesystem::path shown_;
  std::filesystem::path partial_;  ///< empty once committed
};

/// rename(2), also where a network file system has done it, lost the answer and asked again: `from` is then gone and `to`
/// the same file.
std::error_code rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

/// Waits until a file's bytes, or a directory's names, are on the disk, as far as the file system can say so.
/// Throws Error naming `shown_as`, or the path itself if that is empty.
void sync_path(const std::filesystem::path& path, const std::filesystem::path& shown_as = {});

/// Whether a device, a pipe or a socket has the name, or it stands for a file that is open (/dev/stdout, /dev/fd/3): renaming
/// would put a file in the place of the name.
bool is_stream(const std::filesystem::path& file);

/// The whole of a small file (manifest, tokenizer model), by a PendingFile; a stream gets the bytes as they are.
void write_whole_file(const std::filesystem::path& file, std::string_view bytes,
                      const std::filesystem::path& shown_as = {});
/// Throws Error naming the file.
std::string read_whole_file(const std::filesystem::path& file);

/// Throws Error of a file that could not be written, with the reason in errno and the way out.
[[noreturn]] void fail_writing(const std::filesystem::path& file);

/// What the user can do about an errno value met while writing, to end a message with ("" where nothing is
/// known).
const char* write_advice(int error_number);

}  // namespace ratplus
