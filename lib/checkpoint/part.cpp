#include "lib/checkpoint/part.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/files/byte_file.h"
#include "base/files/conveyor.h"
#include "base/files/crc32.h"
#include "base/files/pending_file.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;
using hdf5::Dataset;
using hdf5::Element;
using hdf5::f16_t;
using hdf5::File;
using hdf5::Group;

Element element_of(StoredType type) {
  switch (type) {
    case StoredType::float16:
      return Element::float16;
    case StoredType::bfloat16:
      return Element::bfloat16;
    case StoredType::float32:
      break;
  }
  return Element::float32;
}

/// Weights may be stored shorter; moments, and units of full precision, are float32.
StoredType type_of(Kind kind, const Info& info, const parallel::UnitLayout& unit) {
  return kind == Kind::weights && !unit.full_precision ? info.weights_type : StoredType::float32;
}

/// As a file has it: earlier versions stored units of full precision shorter, too.
StoredType type_of(const Dataset& dataset, const Info& info) {
  const auto whole = static_cast<std::size_t>(bytes_of(StoredType::float32));
  return dataset.element_bytes() == whole ? StoredType::float32 : info.weights_type;
}

template <typename T>
std::span<const T> as_elements(const std::vector<char>& bytes, std::size_t count) {
  return {reinterpret_cast<const T*>(bytes.data()), count};
}

template <typename T>
std::span<T> as_elements(std::vector<char>& bytes, std::size_t count) {
  return {reinterpret_cast<T*>(bytes.data()), count};
}

void write_elements(Dataset& dataset, StoredType type, std::int64_t begin, std::span<const float> values) {
  if (type == StoredType::float32) return dataset.write<float>(begin, values);
  std::vector<char> bytes(values.size() * static_cast<std::size_t>(bytes_of(type)));
  if (!encode(type, values, bytes.data())) {
    fail("{}: {} has values beyond what {} can hold; choose another type", dataset.file().string(),
         dataset.name(), to_string(type));
  }
  if (type == StoredType::float16)
    return dataset.write(begin, as_elements<f16_t>(std::as_const(bytes), values.size()));
  dataset.write(begin, as_elements<bf16_t>(std::as_const(bytes), values.size()));
}

void read_elements(const Dataset& dataset, StoredType type, std::int64_t begin, std::span<float> out) {
  if (type == StoredType::float32) return dataset.read<float>(begin, out);
  std::vector<char> bytes(out.size() * static_cast<std::size_t>(bytes_of(type)));
  if (type == StoredType::float16) {
    dataset.read(begin, as_elements<f16_t>(bytes, out.size()));
  } else {
    dataset.read(begin, as_elements<bf16_t>(bytes, out.size()));
  }
  decode(type, bytes.data(), out);
}

bool holds(const Info& info, Kind kind) {
  return kind == Kind::weights || info.optimizer;
}

/// Names the part and its checkpoint: attributes of the part's file, and their values by the manifest.
std::vector<std::pair<std::string, std::int64_t>> identity(const Info& info, int part) {
  return {{"part", part},
          {"parts", info.parts},
          {"step", info.step},
          {"updates", info.updates},
          {"tokens", info.tokens}};
}

/// Throws Error where the file is another part, or one of another checkpoint, of the same size. Parts of earlier versions have
/// some of the attributes alone.
void check_identity(const File& file, const fs::path& path, const Info& info, int part) {
  for (const auto& [name, wanted] : identity(info, part)) {
    if (!file.has_attribute(name)) continue;
    const auto found = file.integer_attribute(name);
    if (found == wanted) continue;
    if (name == "part") {
      fail("{}: holds part {} instead of {}; it is a copy of another part, so copy it again", path.string(),
           found, wanted);
    }
    fail("{}: has {} = {}, {} beside it {}; the two are of different checkpoints, so copy both from one",
         path.string(), name, found, manifest_name, wanted);
  }
}

/// Elements of a unit on their way to the file.
struct Piece {
  Kind kind = Kind::weights;
  std::size_t unit = 0;
  parallel::UnitRange range;
  std::vector<float> values;
};
/// That are on their way at once.
constexpr std::size_t pieces = 3;

/// The checksum of a file, from front to back.
class FileSum {
 public:
  /// `once`: nobody reads it after this.
  FileSum(const fs::path& file, bool once) : bytes_(file), buffer_(static_cast<std::size_t>(piece)) {
    sum_.bytes = bytes_.size();
    if (once) bytes_.expect_one_reading();
  }
  /// Goes on to `end`, or to the file's.
  void advance(std::int64_t end, const std::function<void(std::int64_t)>& progress = {}) {
    for (end = std::min(end, sum_.bytes); at_ < end;) {
      const auto read = std::span(buffer_).first(static_cast<std::size_t>(std::min(piece, end - at_)));
      bytes_.read(at_, read);
      sum_.crc32 = crc32(sum_.crc32, read);
      at_ += std::ssize(read);
      if (progress) progress(std::ssize(read));
    }
  }
  PartFile finish(const std::function<void(std::int64_t)>& progress = {}) {
    advance(sum_.bytes, progress);
    return sum_;
  }

 private:
  ByteReader bytes_;
  std::vector<char> buffer_;
  PartFile sum_;
  std::int64_t at_ = 0;
};

/// Reads every dataset of a part's file in the order in which they were written. `read` gets the bytes, and the
/// offset of their end in the file.
void read_all_datasets(const fs::path& directory, const Info& info, int part,
                       const std::vector<parallel::UnitLayout>& units,
                       const std::function<void(std::int64_t bytes, std::int64_t end)>& read) {
  const File in = File::open(directory / file_name(part));
  check_identity(in, directory / file_name(part), info, part);
  std::vector<float> buffer(piece);
  for (const Kind kind : all_kinds) {
    if (!holds(info, kind)) continue;
    const Group group = in.group(to_string(kind));
    for (const auto& unit : units) {
      const auto size = parallel::unit_part(unit, part, info.parts).size();
      if (size == 0) continue;
      const auto dataset = group.dataset(unit.name);
      const auto type = type_of(dataset, info);
      in_pieces(size, [&](std::int64_t begin, std::int64_t end) {
        read_elements(dataset, type, begin, std::span(buffer).first(static_cast<std::size_t>(end - begin)));
        const auto bytes = (end - begin) * bytes_of(type);
        read(bytes, dataset.place_of(begin) + bytes);
        hdf5::let_others_in();
      });
    }
  }
}

}  // namespace

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::weights:
      return "weights";
    case Kind::first_moment:
      return "first_moment";
    case Kind::second_moment:
      return "second_moment";
  }
  return "";
}

std::string file_name(int part) {
  return fmt::format("part-{:05}.h5", part);
}

void in_pieces(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
  for (std::int64_t begin = 0; begin < count; begin += piece) work(begin, std::min(begin + piece, count));
}

void write_part(const fs::path& directory, const Info& info, int part,
                const std::vector<parallel::UnitLayout>& units, const ReadState& state) {
  const fs::path shown_as = info.directory / file_name(part);
  File out = File::create(directory / file_name(part), shown_as);
  out.set_attribute("version", std::int64_t{version_of(info)});
  for (const auto& [name, value] : identity(info, part)) out.set_attribute(name, value);
  WriteBehind behind(directory / file_name(part), shown_as);
  std::vector<Group> groups;
  for (const Kind kind : all_kinds) {
    if (holds(info, kind)) groups.push_back(out.create_group(to_string(kind)));
  }
  std::optional<Dataset> dataset;
  // Declared last: it ends before what it writes to.
  Conveyor<Piece> writing(pieces, [&](Piece& next) {
    const auto& unit = units[next.unit];
    const auto range = parallel::unit_part(unit, part, info.parts);
    const auto type = type_of(next.kind, info, unit);
    if (next.range.begin == range.begin) {
      dataset = groups[static_cast<std::size_t>(next.kind)].create_dataset(unit.name, element_of(type),
                                                                           range.size());
    }
    write_elements(*dataset, type, next.range.begin - range.begin, next.values);
    behind.wrote(next.range.size() * bytes_of(type));
    hdf5::let_others_in();
  });
  for (const Kind kind : all_kinds) {
    if (!holds(info, kind)) continue;
    for (std::size_t unit = 0; unit < units.size(); ++unit) {
      const auto range = parallel::unit_part(units[unit], part, info.parts);  // empty: more parts than it has
      in_pieces(range.size(), [&](std::int64_t begin, std::int64_t end) {
        Piece& next = writing.next();
        next.kind = kind;
        next.unit = unit;
        next.range = {range.begin + begin, range.begin + end};
        next.values.resize(static_cast<std::size_t>(end - begin));
        state(kind, unit, next.range, next.values);
        writing.send();
      });
    }
  }
  writing.finish();
  dataset.reset();
  groups.clear();
  out.close();
  sync_path(directory / file_name(part), shown_as);
}

PartFile verify_written(const fs::path& directory, const Info& info, int part,
                        const std::vector<parallel::UnitLayout>& units,
                        const std::function<void(std::int64_t)>& progress) {
  const fs::path file = directory / file_name(part);
  ReadOnce(file).drop_all();
  FileSum sum(file, true);
  // Right behind HDF5, so that each byte comes from the disk once.
  read_all_datasets(directory, info, part, units, [&](std::int64_t bytes, std::int64_t end) {
    sum.advance(end);
    if (progress) progress(bytes);
  });
  return sum.finish();
}

void read_datasets(const fs::path& directory, const Info& info, int part,
                   const std::vector<parallel::UnitLayout>& units,
                   const std::function<void(std::int64_t)>& progress) {
  read_all_datasets(directory, info, part, units, [&](std::int64_t bytes, std::int64_t) {
    if (progress) progress(bytes);
  });
}

PartFile measure(const fs::path& file, const std::function<void(std::int64_t)>& progress) {
  return FileSum(file, false).finish(progress);
}

void check_present(const Info& info, int part) {
  const auto file = info.directory / file_name(part);
  std::error_code missing;
  const auto bytes = static_cast<std::int64_t>(fs::file_size(file, missing));
  if (missing && was_removed(info.directory)) fail_removed(info.directory);
  if (missing) fail("{}: missing; the checkpoint is incomplete", file.string());
  if (info.files.empty()) return;  // written before sizes were recorded
  if (const auto& listed = info.files[static_cast<std::size_t>(part)]; bytes != listed.bytes) {
    fail("{}: has {} bytes instead of {}; it is cut short or of another checkpoint, so copy it again",
         file.string(), bytes, listed.bytes);
  }
}

void PartReader::read(Kind kind, const parallel::UnitLayout& unit, parallel::UnitRange wanted, float* out) {
  for (int part = 0; part < info_.parts; ++part) {
    const auto held = parallel::unit_part(unit, part, info_.parts);
    const auto begin = std::max(wanted.begin, held.begin);
    const auto end = std::min(wanted.end, held.end);
    if (begin >= end) continue;
    const auto& opened = open(part);
    const auto dataset = opened.file.group(to_string(kind)).dataset(unit.name);
    if (dataset.size() != held.size()) {
      fail("{}: {}/{} has {} elements instead of {}; the checkpoint is damaged", path(part).string(),
           to_string(kind), unit.name, dataset.size(), held.size());
    }
    const auto type = type_of(dataset, info_);
    read_elements(dataset, type, begin - held.begin,
                  std::span(out + (begin - wanted.begin), static_cast<std::size_t>(end - begin)));
    if (once_) opened.once.read(dataset.place_of(begin - held.begin), (end - begin) * bytes_of(type));
  }
}

const PartReader::Opened& PartReader::open(int part) {
  auto& file = files_[static_cast<std::size_t>(part)];
  if (!file) {
    check_present(info_, part);
    Opened opened{File::open(path(part)), once_ ? ReadOnce(path(part)) : ReadOnce()};
    check_identity(opened.file, path(part), info_, part);
    file = std::move(opened);
  }
  return *file;
}

}  // namespace ratplus::checkpoint
