// The part files of a checkpoint: one HDF5 file a writing rank, with its part of every unit.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/files/hdf5.h"
#include "base/files/page_cache.h"
#include "lib/checkpoint/in_use.h"
#include "lib/checkpoint/manifest.h"
#include "parallel/unit.h"

namespace ratplus::checkpoint {

/// The kinds of values kept of every unit: groups of a part file.
enum class Kind { weights, first_moment, second_moment };
inline constexpr std::array all_kinds = {Kind::weights, Kind::first_moment, Kind::second_moment};
const char* to_string(Kind kind);

/// "part-00000.h5".
std::string file_name(int part);

/// Elements that pass through the host's memory at once: 16 MiB, whole chunks of a dataset.
inline constexpr std::int64_t piece = std::int64_t{4} << 20;
/// Calls work(begin, end) for [0, count) in pieces.
void in_pieces(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work);

/// Gives elements of a unit, as float32: [range.begin, range.begin + out.size()).
using ReadState =
    std::function<void(Kind kind, std::size_t unit, parallel::UnitRange range, std::span<float> out)>;

/// Writes a part's file into `directory`, which is to become info.directory, and syncs it: what info says it holds.
/// `state` is asked on the caller's thread for what comes next while another one writes.
void write_part(const std::filesystem::path& directory, const Info& info, int part,
                const std::vector<parallel::UnitLayout>& units, const ReadState& state);
/// Reads a written file again, from the disk as far as the system lets: every dataset with its checksums, and all
/// bytes for the manifest's. `progress` gets the bytes of datasets read since the last call.
PartFile verify_written(const std::filesystem::path& directory, const Info& info, int part,
                        const std::vector<parallel::UnitLayout>& units,
                        const std::function<void(std::int64_t)>& progress = {});
/// Reads every dataset of a part's file in `directory`, which HDF5 compares with its checksums. `progress` gets the
/// bytes read since the last call.
void read_datasets(const std::filesystem::path& directory, const Info& info, int part,
                   const std::vector<parallel::UnitLayout>& units,
                   const std::function<void(std::int64_t)>& progress = {});
/// The file's size and checksum. `progress` gets the bytes read since the last call.
PartFile measure(const std::filesystem::path& file, const std::function<void(std::int64_t)>& progress = {});

/// Throws Error naming the part's file where it is missing, or not as long as the manifest says, or saying that the
/// checkpoint was removed since its manifest was read.
void check_present(const Info& info, int part);

/// Reads any elements of any unit, from whichever parts hold them.
class PartReader {
 public:
  /// The info must outlive it. Throws Error where the checkpoint is gone.
  explicit PartReader(const Info& info)
      : info_(info), in_use_(info.directory), files_(static_cast<std::size_t>(info.parts)) {}

  /// Throws Error naming a part's file that is missing, damaged, another part, or one of another checkpoint: of other units,
  /// step, updates or tokens.
  void read(Kind kind, const parallel::UnitLayout& unit, parallel::UnitRange wanted, float* out);
  /// From now on each byte is read once, in the order of the files (base/files/page_cache.h).
  void expect_one_reading() { once_ = true; }

 private:
  struct Opened {
    hdf5::File file;
    ReadOnce once;
  };
  std::filesystem::path path(int part) const { return info_.directory / file_name(part); }
  const Opened& open(int part);

  const Info& info_;
  InUse in_use_;
  bool once_ = false;
  std::vector<std::optional<Opened>> files_;
};

}  // namespace ratplus::checkpoint
