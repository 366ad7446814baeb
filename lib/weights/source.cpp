#include "lib/weights/source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "base/files/byte_file.h"
#include "base/files/foreign_file.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/weights/native_source.h"
#include "lib/weights/pytorch_file.h"
#include "lib/weights/safetensors_file.h"
#include "lib/weights/tensor_source.h"

namespace ratplus::weights {
namespace {

namespace fs = std::filesystem;

/// The index or the one file of safetensors in a directory.
std::optional<fs::path> find_safetensors(const fs::path& directory) {
  std::vector<fs::path> files;
  std::vector<fs::path> indexes;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(directory, unreadable)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(safetensors_index_suffix)) indexes.push_back(entry.path());
    if (name.ends_with(safetensors_suffix)) files.push_back(entry.path());
  }
  if (indexes.size() > 1) {
    std::ranges::sort(indexes);
    fail("{}: holds {} indexes of safetensors ({}, {}{}); give the one that is meant", directory.string(),
         indexes.size(), indexes[0].filename().string(), indexes[1].filename().string(),
         indexes.size() > 2 ? ", ..." : "");
  }
  if (!indexes.empty()) return indexes.front();
  if (files.size() > 1) {
    fail("{}: holds {} files of safetensors and no index (*{}); give one of them, or copy the index too",
         directory.string(), files.size(), safetensors_index_suffix);
  }
  return files.empty() ? std::nullopt : std::optional(files.front());
}

/// Of a file that holds no weights: it may lie in what does.
std::string way_out_of(const fs::path& file) {
  const auto parent = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (fs::exists(parent / checkpoint::manifest_name))
    return fmt::format("of the checkpoint that it is in, give the directory, {}", parent.string());
  if (fs::exists(parent / "job.toml"))
    return fmt::format("of the run that it is in, give the directory, {}", parent.string());
  return "it is damaged or of another kind";
}

std::unique_ptr<TensorFile> open_tensors(const fs::path& file) {
  if (file.string().ends_with(safetensors_index_suffix)) return std::make_unique<SafetensorsFile>(file);
  const ByteReader bytes(file);
  const std::string head = bytes.read(0, std::min<std::int64_t>(bytes.size(), 16));
  const auto begins = [&](std::string_view what) { return head.starts_with(what); };
  if (begins("PK\x03\x04")) return std::make_unique<PyTorchFile>(file);
  if (head.size() > 8 && head[8] == '{') return std::make_unique<SafetensorsFile>(file);
  if (begins("\x89HDF\r\n\x1a\n")) {
    fail("{}: an HDF5 file; of a checkpoint give the directory, which holds {} too", file.string(),
         checkpoint::manifest_name);
  }
  if (head.size() > 1 && head[0] == '\x80' && head[1] <= 5) {
    fail(
        "{}: a pickle without its archive, as PyTorch wrote before version 1.6; load it in PyTorch and save "
        "it "
        "again",
        file.string());
  }
  if (const auto kind = foreign_kind_of_file(file); !kind.empty()) fail("{}: is {}", file.string(), kind);
  if (begins("<")) fail("{}: a page of the web, not weights; download the file itself", file.string());
  fail("{}: neither a file of PyTorch's (.pth) nor safetensors; {}", file.string(), way_out_of(file));
}

}  // namespace

bool is_checkpoint(const fs::path& path) {
  return fs::exists(path / checkpoint::manifest_name);
}

std::optional<fs::path> find(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  if (!fs::is_directory(path) || is_checkpoint(path)) return path;
  if (const auto found = checkpoint::newest(path)) return found;
  return find_safetensors(path);
}

fs::path resolve(const fs::path& path) {
  if (const auto found = find(path)) return *found;
  if (!fs::exists(path)) fail("{}: no such checkpoint, run directory or file of weights", path.string());
  fail(
      "{}: this directory is neither a checkpoint (no {}), nor a run with a complete checkpoint, nor does it "
      "hold safetensors; give one that is or does, or a .pth file",
      path.string(), checkpoint::manifest_name);
}

std::unique_ptr<WeightsSource> open_source(const fs::path& path, const model::ModelConfig& assumed) {
  const auto found = resolve(path);
  if (fs::is_directory(found)) return std::make_unique<NativeSource>(found);
  return std::make_unique<TensorSource>(open_tensors(found), assumed);
}

bool is_bfloat16(const WeightsSource& source) {
  for (std::size_t unit = 0; unit < source.units().size(); ++unit) {
    const auto& layout = source.units()[unit];
    for (std::size_t slot = 0; slot < layout.slots.size() && !layout.full_precision; ++slot) {
      if (source.stored_type(unit, slot) != StoredType::bfloat16) return false;
    }
  }
  return true;
}

void read_finite(WeightsSource& source, std::size_t unit, parallel::UnitRange range, float* out) {
  source.read(unit, range, out);
  const std::span<const float> values(out, static_cast<std::size_t>(range.size()));
  const auto found = std::ranges::find_if_not(values, [](float x) { return std::isfinite(x); });
  if (found == values.end()) return;
  const auto at = range.begin + (found - values.begin());
  const auto& slots = source.units()[unit].slots;
  const auto behind = std::ranges::upper_bound(slots, at, {}, &parallel::ParameterSlot::offset);
  fail("{}: {} holds an element that is no finite number; take an earlier checkpoint",
       source.info().directory.string(), std::prev(behind)->name);
}

void load(WeightsSource& source, parallel::ParameterStore& store, Ops& ops) {
  std::vector<float> buffer(checkpoint::piece);
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
    const auto owned = store.owned(unit);
    checkpoint::in_pieces(owned.size(), [&](std::int64_t begin, std::int64_t end) {
      read_finite(source, unit, {owned.begin + begin, owned.begin + end}, buffer.data());
      ops.upload(store.master(unit).slice(0, begin, end), buffer.data());
    });
  }
}

}  // namespace ratplus::weights
