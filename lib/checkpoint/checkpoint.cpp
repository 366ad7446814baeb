#include "lib/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <system_error>

#include "data/hdf5.h"
#include "kernels/error.h"
#include "lib/checkpoint/manifest.h"
#include "lib/model/parameters.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;
using data::hdf5::Element;
using data::hdf5::File;
using data::hdf5::Group;

constexpr const char* partial_suffix = ".partial";
constexpr std::array<const char*, 3> kinds = {"weights", "first_moment", "second_moment"};

/// Waits until a file's or directory's contents are on the disk.
void sync_path(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) fail("{}: cannot be written to disk: {}", path.string(), std::strerror(reason));
}

/// The tensor that holds owned(unit) of one kind: master weights, or a moment.
Tensor tensor_of(std::size_t kind, std::size_t unit, const parallel::ParameterStore& store,
                 const optim::Optimizer* optimizer) {
  if (kind == 0) return store.master(unit);
  return kind == 1 ? optimizer->first_moment(unit) : optimizer->second_moment(unit);
}

/// This rank's part of every unit into one file.
void write_part(const fs::path& file, int part, int parts, const parallel::ParameterStore& store,
                const optim::Optimizer& optimizer, Ops& ops) {
  File out = File::create(file);
  out.set_attribute("version", std::int64_t{format_version});
  out.set_attribute("part", std::int64_t{part});
  out.set_attribute("parts", std::int64_t{parts});
  std::vector<float> host;
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    Group group = out.create_group(kinds[kind]);
    for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
      const auto saved = store.saved(unit);
      const auto owned = store.owned(unit);
      if (saved.size() == 0) continue;  // more ranks than this unit has parts
      host.resize(static_cast<std::size_t>(saved.size()));
      const Tensor whole = tensor_of(kind, unit, store, &optimizer);
      ops.download(host.data(), whole.slice(0, saved.begin - owned.begin, saved.end - owned.begin));
      auto dataset = group.create_dataset(store.units()[unit].name, Element::float32, saved.size());
      dataset.write<float>(0, host);
    }
  }
  out.close();
  sync_path(file);
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
        fail("{}: {}/{} has {} elements instead of {}; the checkpoint is damaged, resume from another",
             path(part).string(), kind, unit.name, dataset.size(), held.size());
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
        fail("{}: missing; the checkpoint is incomplete, resume from another", path(part).string());
      }
      file = File::open(path(part));
    }
    return *file;
  }

  const Info& info_;
  std::vector<std::optional<File>> files_;
};

void load_kind(std::size_t kind, const parallel::ParameterStore& store,
               optim::Optimizer* optimizer, Ops& ops, PartReader& reader) {
  std::vector<float> host;
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
    const auto owned = store.owned(unit);
    if (owned.size() == 0) continue;
    host.resize(static_cast<std::size_t>(owned.size()));
    reader.read(kinds[kind], store.units()[unit], owned, host.data());
    ops.upload(tensor_of(kind, unit, store, optimizer), host.data());
  }
}

fs::path checkpoints_of(const fs::path& run) { return run / "checkpoints"; }

/// Complete checkpoints of a run, oldest first.
std::vector<fs::path> complete_checkpoints(const fs::path& run) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints_of(run), ignored)) {
    if (entry.path().extension() != partial_suffix && fs::exists(entry.path() / manifest_name)) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::string file_name(int part) { return fmt::format("part-{:05}.h5", part); }

fs::path step_directory(const fs::path& run, std::int64_t step) {
  return checkpoints_of(run) / fmt::format("step-{:08}", step);
}

std::optional<fs::path> newest(const fs::path& run) {
  const auto found = complete_checkpoints(run);
  if (found.empty()) return std::nullopt;
  return found.back();
}

fs::path resolve(const fs::path& given) {
  if (!fs::exists(given)) fail("{}: no such checkpoint or run directory", given.string());
  if (fs::exists(given / manifest_name)) return given;
  if (const auto found = newest(given)) return *found;
  fail("{}: neither a checkpoint (no {}) nor a run with a complete checkpoint", given.string(), manifest_name);
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
      fs::remove_all(partial);
      fs::create_directories(partial);
    });
    world.agree([&] {
      write_part(partial / file_name(world.rank()), world.rank(), world.size(), store, optimizer, ops);
    });
    on_root([&] {
      write_manifest(partial, info);
      sync_path(partial);
      fs::remove_all(info.directory);
      fs::rename(partial, info.directory);
      sync_path(info.directory.parent_path());
    });
  } catch (...) {
    std::error_code ignored;
    if (world.root()) fs::remove_all(partial, ignored);
    throw;
  }
}

void load_weights(const Info& info, parallel::ParameterStore& store, Ops& ops) {
  PartReader reader(info);
  load_kind(0, store, nullptr, ops, reader);
}

void load_optimizer(const Info& info, const parallel::ParameterStore& store, optim::Optimizer& optimizer, Ops& ops) {
  PartReader reader(info);
  load_kind(1, store, &optimizer, ops, reader);
  load_kind(2, store, &optimizer, ops, reader);
  optimizer.set_updates(info.updates);
}

void prune(const fs::path& run, std::int64_t keep) {
  std::error_code ignored;
  auto found = complete_checkpoints(run);
  while (static_cast<std::int64_t>(found.size()) > keep) {
    // The manifest first: what is left of an interrupted removal is no checkpoint.
    fs::remove(found.front() / manifest_name, ignored);
    fs::remove_all(found.front(), ignored);
    found.erase(found.begin());
  }
  for (const auto& entry : fs::directory_iterator(checkpoints_of(run), ignored)) {
    if (entry.path().extension() == partial_suffix || !fs::exists(entry.path() / manifest_name)) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

}  // namespace ratplus::checkpoint
