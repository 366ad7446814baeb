// Where the elements of a dataset are kept. HDF5 gives fill values, zeros, for what was never written and for what other
// files hold and is missing; here that is an error.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/files/hdf5.h"
#include "base/files/hdf5_lock.h"

namespace ratplus::hdf5 {
namespace {

namespace fs = std::filesystem;

constexpr int deepest_source = 8;  ///< virtual datasets of virtual datasets

void check_storage(hid_t dataset, const fs::path& file, const std::string& name, int depth);

/// Rows and columns of an open dataset, whatever their number.
std::vector<hsize_t> extent_of(hid_t dataset) {
  const Handle space(H5Dget_space(dataset), &H5Sclose);
  std::vector<hsize_t> extent(static_cast<std::size_t>(std::max(H5Sget_simple_extent_ndims(space.get()), 0)));
  if (!extent.empty()) H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
  return extent;
}

std::int64_t bytes_in(hid_t dataset) {
  const Handle type(H5Dget_type(dataset), &H5Tclose);
  auto bytes = static_cast<std::int64_t>(H5Tget_size(type.get()));
  for (const hsize_t length : extent_of(dataset)) bytes *= static_cast<std::int64_t>(length);
  return bytes;
}

void check_chunks(hid_t dataset, hid_t create, const fs::path& file, const std::string& name) {
  const std::vector<hsize_t> extent = extent_of(dataset);
  std::vector<hsize_t> chunk(extent.size());
  if (H5Pget_chunk(create, static_cast<int>(chunk.size()), chunk.data()) < 0) return;
  hsize_t wanted = 1;
  for (std::size_t i = 0; i < extent.size(); ++i) wanted *= (extent[i] + chunk[i] - 1) / chunk[i];
  hsize_t there = 0;
  const Handle all(H5Dget_space(dataset), &H5Sclose);  // HDF5 1.10 takes no H5S_ALL here
  if (H5Dget_num_chunks(dataset, all.get(), &there) < 0)
    fail("{}: cannot read the index of dataset \"{}\"; the file is damaged, so make or copy it again",
         file.string(), name);
  if (there < wanted) {
    fail(
        "{}: dataset \"{}\" was not written to its end: {} of its {} chunks are missing, and would be read "
        "as "
        "fill values; write it again",
        file.string(), name, wanted - there, wanted);
  }
}

void check_external(hid_t dataset, hid_t create, int files, const fs::path& file, const std::string& name) {
  std::int64_t left = bytes_in(dataset);
  for (int i = 0; i < files && left > 0; ++i) {
    std::array<char, 4096> external{};
    off_t offset = 0;
    hsize_t size = 0;
    if (H5Pget_external(create, static_cast<unsigned>(i), external.size() - 1, external.data(), &offset,
                        &size) < 0)
      fail("{}: cannot find the files of dataset \"{}\"", file.string(), name);
    const std::int64_t part =
        size == H5F_UNLIMITED ? left : std::min<std::int64_t>(left, static_cast<std::int64_t>(size));
    std::error_code missing;
    const auto bytes = static_cast<std::int64_t>(fs::file_size(external.data(), missing));
    if (missing || bytes < offset + part) {
      fail(
          "{}: dataset \"{}\" is stored in the file {}, which {}; put it there whole (a relative name is "
          "looked "
          "for in the working directory)",
          file.string(), name, external.data(),
          missing ? std::string("cannot be found")
                  : fmt::format("has {} bytes where {} are wanted", bytes, offset + part));
    }
    left -= part;
  }
  if (left > 0)
    fail("{}: dataset \"{}\" is stored in files that hold {} bytes too few; write it again", file.string(),
         name, left);
}

std::string source_name(ssize_t (*get)(hid_t, size_t, char*, size_t), hid_t create, std::size_t index) {
  const ssize_t length = get(create, index, nullptr, 0);
  std::string name(static_cast<std::size_t>(std::max<ssize_t>(length, 0)) + 1, '\0');
  get(create, index, name.data(), name.size());
  name.pop_back();
  return name;
}

/// The file that HDF5 takes for a virtual dataset's source: beside the file, or in the working directory.
fs::path find_source(const fs::path& file, const std::string& source) {
  const fs::path beside = file.parent_path() / source;
  return fs::exists(beside) ? beside : fs::path(source);
}

/// One mapping of a virtual dataset, of `wanted` elements: its source is there and reaches as far as is taken of it.
void check_source(hid_t dataset, hid_t create, std::size_t index, const fs::path& file,
                  const std::string& name, int depth, hsize_t wanted) {
  const std::string source_file = source_name(H5Pget_virtual_filename, create, index);
  const std::string source = source_name(H5Pget_virtual_dsetname, create, index);
  const fs::path path = source_file == "." ? file : find_source(file, source_file);
  const auto refuse = [&](const std::string& what) {
    fail(
        "{}: dataset \"{}\" is virtual, and its source, dataset \"{}\" of {}, {}; put the source in its "
        "place, or "
        "import the sources themselves",
        file.string(), name, source, path.string(), what);
  };
  if (!fs::is_regular_file(path)) refuse("is missing");
  const Handle opened = source_file == "."
                            ? Handle(H5Iget_file_id(dataset), &H5Fclose)
                            : Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, file_access().get()), &H5Fclose);
  if (!opened.open()) refuse("cannot be opened");
  const Handle found(H5Dopen2(opened.get(), source.c_str(), H5P_DEFAULT), &H5Dclose);
  if (!found.open()) refuse("is missing");
  const Handle taken(H5Pget_virtual_srcspace(create, index), &H5Sclose);
  const std::vector<hsize_t> extent = extent_of(found.get());
  // HDF5 keeps "all of it" as such, without a shape: then the source must have the mapping's own number of elements.
  if (H5Sget_select_type(taken.get()) == H5S_SEL_ALL && H5Sget_simple_extent_ndims(taken.get()) <= 0) {
    hsize_t elements = 1;
    for (const hsize_t each : extent) elements *= each;
    if (elements != wanted) refuse(fmt::format("has {} elements where {} are wanted", elements, wanted));
    check_storage(found.get(), path, source, depth + 1);
    return;
  }
  const auto there = static_cast<std::size_t>(std::max(H5Sget_simple_extent_ndims(taken.get()), 0));
  std::vector<hsize_t> first(std::max<std::size_t>(there, 1));
  std::vector<hsize_t> last(first.size());
  if (there != extent.size() || H5Sget_select_bounds(taken.get(), first.data(), last.data()) < 0)
    refuse("has another shape than is taken of it");
  for (std::size_t i = 0; i < extent.size(); ++i) {
    if (last[i] >= extent[i])
      refuse(fmt::format("has {} elements where {} are wanted", extent[i], last[i] + 1));
  }
  check_storage(found.get(), path, source, depth + 1);
}

void check_virtual(hid_t dataset, hid_t create, const fs::path& file, const std::string& name, int depth) {
  if (depth > deepest_source)
    fail("{}: dataset \"{}\" is virtual more than {} times over", file.string(), name, deepest_source);
  std::size_t count = 0;
  H5Pget_virtual_count(create, &count);
  hssize_t covered = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Handle part(H5Pget_virtual_vspace(create, i), &H5Sclose);
    const hssize_t points = H5Sget_select_npoints(part.get());
    if (points < 0 || H5Sget_select_type(part.get()) == H5S_SEL_NONE) {
      fail("{}: dataset \"{}\" is virtual with sources without a fixed number; import the sources themselves",
           file.string(), name);
    }
    covered += points;
    check_source(dataset, create, i, file, name, depth, static_cast<hsize_t>(points));
  }
  hssize_t wanted = 1;
  for (const hsize_t length : extent_of(dataset)) wanted *= static_cast<hssize_t>(length);
  if (covered != wanted) {
    fail(
        "{}: dataset \"{}\" is virtual, and its sources give {} of its {} elements; the others would be read "
        "as "
        "fill values, so import the sources themselves",
        file.string(), name, covered, wanted);
  }
}

void check_storage(hid_t dataset, const fs::path& file, const std::string& name, int depth) {
  if (bytes_in(dataset) == 0) return;
  const Handle create(H5Dget_create_plist(dataset), &H5Pclose);
  switch (H5Pget_layout(create.get())) {
    case H5D_VIRTUAL:
      return check_virtual(dataset, create.get(), file, name, depth);
    case H5D_CHUNKED:
      return check_chunks(dataset, create.get(), file, name);
    case H5D_CONTIGUOUS:
      break;
    default:
      return;  // compact: in the header
  }
  if (const int files = H5Pget_external_count(create.get()); files > 0)
    return check_external(dataset, create.get(), files, file, name);
  H5D_space_status_t status = H5D_SPACE_STATUS_ALLOCATED;
  if (H5Dget_space_status(dataset, &status) >= 0 && status == H5D_SPACE_STATUS_NOT_ALLOCATED) {
    fail("{}: dataset \"{}\" was never written, and would be read as fill values; write it again",
         file.string(), name);
  }
}

/// Throws Error naming a filter that the library lacks: without it no chunk can be read.
void check_filters(hid_t dataset, const fs::path& file, const std::string& name) {
  const Handle create(H5Dget_create_plist(dataset), &H5Pclose);
  for (int i = 0; i < std::max(H5Pget_nfilters(create.get()), 0); ++i) {
    unsigned flags = 0;
    unsigned configuration = 0;
    std::size_t values = 0;
    std::array<char, 256> filter{};
    const H5Z_filter_t id = H5Pget_filter2(create.get(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                           filter.size() - 1, filter.data(), &configuration);
    if (id < 0 || H5Zfilter_avail(id) > 0) continue;
    H5Eclear2(H5E_DEFAULT);
    fail(
        "{}: dataset \"{}\" is packed by the filter \"{}\" (number {}), which this HDF5 library does not "
        "have; "
        "write it with gzip or unpacked (h5repack -f NONE), or name the directory of the filter's plugin in "
        "HDF5_PLUGIN_PATH",
        file.string(), name, filter.data(), static_cast<int>(id));
  }
}

}  // namespace

void Dataset::require_written() const {
  const Lock lock;
  check_storage(handle_.get(), state_->name, name_, 0);
}

bool Dataset::holds_unsigned() const {
  const Lock lock;
  const Handle type(H5Dget_type(handle_.get()), &H5Tclose);
  return H5Tget_sign(type.get()) == H5T_SGN_NONE;
}

std::vector<std::string> Group::datasets() const {
  const Lock lock;
  std::vector<std::string> found;
  const auto add = [](hid_t, const char* name, const H5O_info_t* info, void* list) -> herr_t {
    if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(list)->emplace_back(name);
    return 0;
  };
  if (H5Ovisit2(handle_.get(), H5_INDEX_NAME, H5_ITER_INC, add, &found, H5O_INFO_BASIC) < 0) {
    H5Eclear2(H5E_DEFAULT);
    fail("{}: cannot read the names in the file; it is damaged, so make or copy it again",
         state_->name.string());
  }
  return found;
}

void Group::require_dataset(const std::string& name) const {
  const Lock lock;
  const std::string file = state_->name.string();
  const auto there = [&] {
    const std::vector<std::string> names = datasets();
    return names.empty() ? std::string("there are none")
                         : fmt::format("there are: {}", fmt::join(names, ", "));
  };
  if (!has(name)) fail("{}: has no dataset \"{}\"; {}", file, name, there());
  if (H5Oexists_by_name(handle_.get(), name.c_str(), H5P_DEFAULT) <= 0) {
    H5Eclear2(H5E_DEFAULT);
    fail(
        "{}: \"{}\" is a link to a dataset that is missing; put the file or the dataset that it leads to in "
        "its "
        "place",
        file, name);
  }
  const Handle object(H5Oopen(handle_.get(), name.c_str(), H5P_DEFAULT), &H5Oclose);
  if (object.open() && H5Iget_type(object.get()) == H5I_GROUP)
    fail("{}: \"{}\" is a group, not a dataset; {}", file, name, there());
  if (object.open() && H5Iget_type(object.get()) == H5I_DATASET)
    check_filters(object.get(), state_->name, name);
}

std::optional<std::uint32_t> checksum_attribute(const Object& object) {
  if (!object.has_attribute("crc32")) return std::nullopt;
  return static_cast<std::uint32_t>(object.integer_attribute("crc32"));
}

}  // namespace ratplus::hdf5
