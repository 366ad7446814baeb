#include "lib/checkpoint/checkpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <span>
#include <string_view>
#include <system_error>
#include <tuple>

#include "data/hdf5.h"
#include "data/pending_file.h"
#include "kernels/error.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;
using data::hdf5::Element;
using data::hdf5::File;
using data::hdf5::Group;

constexpr std::string_view step_prefix = "step-";
constexpr std::string_view partial_suffix = ".partial";
/// Elements that pass through the host's memory at once: 16 MiB, whole chunks of a dataset.
constexpr std::int64_t piece = std::int64_t{4} << 20;
constexpr std::array<const char*, 3> kinds = {"weights", "first_moment", "second_moment"};

/// The tensor that holds owned(unit) of one kind: master weights, or a moment.
Tensor tensor_of(std::size_t kind, std::size_t unit, const parallel::ParameterStore& store,
                 const optim::Optimizer* optimizer) {
  if (kind == 0) return store.master(unit);
  return kind == 1 ? optimizer->first_moment(unit) : optimizer->second_moment(unit);
}

/// Calls work(begin, end) for [0, count) in pieces.
void in_pieces(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
  for (std::int64_t begin = 0; begin < count; begin += piece) work(begin, std::min(begin + piece, count));
}

std::span<float> first_of(std::vector<float>& buffer, std::int64_t count) {
  return std::span(buffer).first(static_cast<std::size_t>(count));
}

/// This rank's part of every unit into one file of `partial`, which is to become info.directory.
void write_part(const fs::path& partial, const Info& info, int part, const parallel::ParameterStore& store,
                const optim::Optimizer& optimizer, Ops& ops) {
  const fs::path shown_as = info.directory / file_name(part);
  File out = File::create(partial / file_name(part), shown_as);
  out.set_attribute("version", std::int64_t{format_version});
  out.set_attribute("part", std::int64_t{part});
  out.set_attribute("parts", std::int64_t{info.parts});
  std::vector<float> buffer(piece);
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    Group group = out.create_group(kinds[kind]);
    for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
      const auto saved = store.saved(unit);
      if (saved.size() == 0) continue;  // more ranks than this unit has parts
      const Tensor owned = tensor_of(kind, unit, store, &optimizer);
      const std::int64_t first = saved.begin - store.owned(unit).begin;
      auto dataset = group.create_dataset(store.units()[unit].name, Element::float32, saved.size());
      in_pieces(saved.size(), [&](std::int64_t begin, std::int64_t end) {
        const auto host = first_of(buffer, end - begin);
        ops.download(host.data(), owned.slice(0, first + begin, first + end));
        dataset.write<float>(begin, host);
      });
    }
  }
  out.close();
  data::sync_path(partial / file_name(part), shown_as);
}

/// Reads what this rank owns of every unit and one kind, from whichever parts hold it.
class PartReader {
 public:
  explicit PartReader(const Info& info) : info_(info), files_(static_cast<std::size_t>(info.parts)) {}

  void read(const char* kind, const parallel::UnitLayout& unit, parallel::UnitRange wanted, float* out) {
    for (int part = 0; part < info_.parts; ++part) {
      const auto held = parallel::unit_part(unit, part, info_.parts);
      const auto begin = std::max(wanted.begin, held.begin);
      const auto end = std::min(wanted.end, held.end);
      if (begin >= end) continue;
      const auto dataset = open(part).group(kind).dataset(unit.name);
      if (dataset.size() != held.size()) {
        fail("{}: {}/{} has {} elements instead of {}; the checkpoint is damaged", path(part).string(), kind,
             unit.name, dataset.size(), held.size());
      }
      dataset.read<float>(begin - held.begin,
                          std::span(out + (begin - wanted.begin), static_cast<std::size_t>(end - begin)));
    }
  }

 private:
  fs::path path(int part) const { return info_.directory / file_name(part); }

  File& open(int part) {
    auto& file = files_[static_cast<std::size_t>(part)];
    if (!file) {
      if (!fs::exists(path(part))) {
        fail("{}: missing; the checkpoint is incomplete", path(part).string());
      }
      file = File::open(path(part));
    }
    return *file;
  }

  const Info& info_;
  std::vector<std::optional<File>> files_;
};

void load_kind(std::size_t kind, const parallel::ParameterStore& store, optim::Optimizer* optimizer, Ops& ops,
               PartReader& reader) {
  std::vector<float> buffer(piece);
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
    const auto owned = store.owned(unit);
    if (owned.size() == 0) continue;
    const Tensor here = tensor_of(kind, unit, store, optimizer);
    in_pieces(owned.size(), [&](std::int64_t begin, std::int64_t end) {
      const auto host = first_of(buffer, end - begin);
      reader.read(kinds[kind], store.units()[unit], {owned.begin + begin, owned.begin + end}, host.data());
      ops.upload(here.slice(0, begin, end), host.data());
    });
  }
}

/// Runs a load; what it throws gets the way out.
void with_way_out(const Info& info, const std::function<void()>& load) {
  try {
    load();
  } catch (const Error& error) {
    fail("{}\nWithout {} a resumed run goes on from the checkpoint before it: remove or move it",
         error.what(), info.directory.string());
  }
}

fs::path checkpoints_of(const fs::path& run) {
  return run / "checkpoints";
}

/// A directory that save() made or was making.
struct StepDirectory {
  std::int64_t step = 0;
  fs::path path;
  bool complete = false;
};

/// N of "step-N", the one kind of name that is ours.
std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(step_prefix)) return std::nullopt;
  name.remove_prefix(step_prefix.size());
  if (name.empty() || name.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  std::int64_t step = 0;
  const auto end = name.data() + name.size();
  if (std::from_chars(name.data(), end, step).ec != std::errc{}) return std::nullopt;
  return step;
}

/// What is ours in run/checkpoints, in the order of the steps (as numbers: names get longer at step 10^8).
std::vector<StepDirectory> step_directories(const fs::path& run, std::error_code& reason) {
  std::vector<StepDirectory> found;
  std::error_code ignored;
  for (fs::directory_iterator entry(checkpoints_of(run), reason), end; !reason && entry != end;
       entry.increment(reason)) {
    if (!entry->is_directory(ignored)) continue;
    const std::string name = entry->path().filename().string();
    std::string_view stem = name;
    const bool partial = stem.ends_with(partial_suffix);
    if (partial) stem.remove_suffix(partial_suffix.size());
    const auto step = step_of(stem);
    if (!step) continue;
    const bool complete = !partial && fs::exists(entry->path() / manifest_name, ignored);
    found.push_back({*step, entry->path(), complete});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return std::tie(a.step, a.path) < std::tie(b.step, b.path); });
  return found;
}

/// A link goes, but not what it leads to.
void remove_directory(const fs::path& directory) {
  std::error_code ignored;
  // The manifest first: what is left of an interrupted removal is no checkpoint.
  if (!fs::is_symlink(directory, ignored)) fs::remove(directory / manifest_name, ignored);
  fs::remove_all(directory, ignored);
}

/// For the functions of std::filesystem that report so.
void require_written(const std::error_code& reason, const fs::path& directory) {
  if (!reason) return;
  fail("cannot write {}: {}{}", directory.string(), reason.message(), data::write_advice(reason.value()));
}

}  // namespace

std::string file_name(int part) {
  return fmt::format("part-{:05}.h5", part);
}

fs::path step_directory(const fs::path& run, std::int64_t step) {
  return checkpoints_of(run) / fmt::format("{}{:08}", step_prefix, step);
}

std::vector<fs::path> list(const fs::path& run) {
  std::error_code reason;
  std::vector<fs::path> complete;
  for (auto& each : step_directories(run, reason)) {
    if (each.complete) complete.push_back(std::move(each.path));
  }
  // Anything but "there is none" would pass for a run without checkpoints, and be started anew.
  if (reason && reason != std::errc::no_such_file_or_directory) {
    fail("{}: cannot be read: {}", checkpoints_of(run).string(), reason.message());
  }
  return complete;
}

std::optional<fs::path> newest(const fs::path& run) {
  const auto found = list(run);
  if (found.empty()) return std::nullopt;
  return found.back();
}

fs::path resolve(const fs::path& given) {
  if (!fs::exists(given)) fail("{}: no such checkpoint or run directory", given.string());
  if (fs::exists(given / manifest_name)) return given;
  if (const auto found = newest(given)) return *found;
  fail("{}: neither a checkpoint (no {}) nor a run with a complete checkpoint", given.string(),
       manifest_name);
}

void save(const parallel::World& world, Info info, const parallel::ParameterStore& store,
          const optim::Optimizer& optimizer, Ops& ops) {
  info.parts = world.size();
  fs::path partial = info.directory;
  partial += partial_suffix;
  const auto on_root = [&](const std::function<void()>& work) {
    world.agree([&] {
      if (world.root()) work();
    });
  };
  try {
    on_root([&] {
      std::error_code reason;
      fs::remove_all(partial, reason);
      if (!reason) fs::create_directories(partial, reason);
      require_written(reason, info.directory);
    });
    world.watchdog().at("saving", file_name(store.saved_part()));
    world.agree([&] { write_part(partial, info, store.saved_part(), store, optimizer, ops); });
    world.watchdog().at("saving", manifest_name);
    on_root([&] {
      write_manifest(partial, info);
      data::sync_path(partial, info.directory);
      std::error_code reason;
      fs::remove_all(info.directory, reason);
      if (!reason) fs::rename(partial, info.directory, reason);
      require_written(reason, info.directory);
      data::sync_path(info.directory.parent_path(), info.directory);
    });
  } catch (...) {
    std::error_code ignored;
    if (world.root()) fs::remove_all(partial, ignored);
    throw;
  }
}

void load_weights(const Info& info, parallel::ParameterStore& store, Ops& ops) {
  PartReader reader(info);
  with_way_out(info, [&] { load_kind(0, store, nullptr, ops, reader); });
}

void load_optimizer(const Info& info, const parallel::ParameterStore& store, optim::Optimizer& optimizer,
                    Ops& ops) {
  PartReader reader(info);
  with_way_out(info, [&] {
    load_kind(1, store, &optimizer, ops, reader);
    load_kind(2, store, &optimizer, ops, reader);
  });
  optimizer.set_updates(info.updates);
}

void prune(const fs::path& run, std::int64_t keep) {
  std::error_code ignored;  // what cannot be removed is in nobody's way
  const auto found = step_directories(run, ignored);
  auto surplus =
      std::count_if(found.begin(), found.end(), [](const auto& each) { return each.complete; }) - keep;
  for (const auto& each : found) {
    if (!each.complete || surplus-- > 0) remove_directory(each.path);
  }
}

}  // namespace ratplus::checkpoint
