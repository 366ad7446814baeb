// EventFile: scalars in the form that TensorBoard reads (TFRecords of protobuf Events).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/files/append_file.h"

namespace ratplus::tensorboard {

struct Scalar {
  std::string tag;  ///< "loss/dense"; the part before the slash is a group
  double value = 0;
};

/// Every call appends one record in one write, so that a reader meanwhile, or a crash, meets at most one that is cut
/// short, which TensorBoard waits for or passes over. Records for which there is no room are kept and tried again
/// (AppendFile).
class EventFile {
 public:
  /// A new file in `directory`, which is made. TensorBoard reads the files of a directory in the order of their names,
  /// so its name comes after all that are there. `first_step` is the next step of the run: what earlier files have of
  /// it and of later ones belongs to work that was lost, and TensorBoard drops it. Throws Error naming the file.
  EventFile(const std::filesystem::path& directory, std::int64_t first_step);

  /// One event; the time is now.
  void write(std::int64_t step, std::span<const Scalar> scalars);

  /// Tries once more to write the records that wait.
  void retry() { file_.retry(); }
  /// Why records are not in the file yet; empty where all are.
  std::string trouble() const { return file_.trouble(); }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  void append(std::string_view event);

  AppendFile file_;
};

}  // namespace ratplus::tensorboard
