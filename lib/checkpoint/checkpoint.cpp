#include "lib/checkpoint/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <span>
#include <string_view>
#include <system_error>
#include <tuple>

#include "base/error.h"
#include "base/files/appears.h"
#include "base/files/pending_file.h"
#include "lib/checkpoint/in_use.h"
#include "lib/checkpoint/pending_directory.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view step_prefix = "step-";
constexpr std::string_view partial_suffix = ".partial";
/// Reads the state from this rank's device, piece by piece.
ReadState state_of(const parallel::ParameterStore& store, const optim::Optimizer& optimizer, Ops& ops) {
  return [&](Kind kind, std::size_t unit, parallel::UnitRange range, std::span<float> out) {
    const auto first = range.begin - store.owned(unit).begin;
    ops.download(out.data(),
                 state_tensor(kind, unit, store, optimizer).slice(0, first, first + range.size()));
  };
}

void load_kind(Kind kind, const parallel::ParameterStore& store, optim::Optimizer* optimizer, Ops& ops,
               PartReader& reader) {
  std::vector<float> buffer(piece);
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
    const auto owned = store.owned(unit);
    const Tensor here =
        kind == Kind::weights ? store.master(unit) : state_tensor(kind, unit, store, *optimizer);
    in_pieces(owned.size(), [&](std::int64_t begin, std::int64_t end) {
      reader.read(kind, store.units()[unit], {owned.begin + begin, owned.begin + end}, buffer.data());
      ops.upload(here.slice(0, begin, end), buffer.data());
    });
  }
}

/// Runs a load; what it throws gets the way out.
void with_way_out(const Info& info, const std::function<void()>& load) {
  try {
    load();
  } catch (const Error& error) {
    if (was_removed(info.directory)) fail_removed(info.directory);
    fail("{}\nWithout {} a resumed run goes on from the checkpoint before it: remove or move it",
         error.what(), info.directory.string());
  }
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
    std::error_code
        unknown;  // a file system that does not answer: the checkpoint is not taken for an interrupted one
    const bool complete = !partial && (fs::exists(entry->path() / manifest_name, unknown) || unknown);
    found.push_back({*step, entry->path(), complete});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return std::tie(a.step, a.path) < std::tie(b.step, b.path); });
  return found;
}

}  // namespace

fs::path checkpoints_of(const fs::path& run) {
  return run / "checkpoints";
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

std::optional<Info> newest_present(const fs::path& run) {
  const auto found = list(run);
  for (auto each = found.rbegin(); each != found.rend(); ++each) {
    try {
      auto info = read_info(*each);
      for (int part = 0; part < info.parts; ++part) check_present(info, part);
      return info;
    } catch (const Error&) {
      continue;  // is passed over by a resumed run, which says why
    }
  }
  return std::nullopt;
}

fs::path resolve(const fs::path& given) {
  if (!fs::exists(given)) fail("{}: no such checkpoint or run directory", given.string());
  if (fs::exists(given / manifest_name)) return given;
  if (const auto found = newest(given)) return *found;
  fail("{}: neither a checkpoint (no {}) nor a run with a complete checkpoint", given.string(),
       manifest_name);
}

std::vector<PartFile> gather(const PartFile& own, int part, const parallel::World& world) {
  const auto parts = world.all(std::int64_t{part});
  const auto bytes = world.all(own.bytes);
  const auto sums = world.all(std::int64_t{own.crc32});
  std::vector<PartFile> files(parts.size());
  for (std::size_t r = 0; r < parts.size(); ++r) {
    files[static_cast<std::size_t>(parts[r])] = {.bytes = bytes[r],
                                                 .crc32 = static_cast<std::uint32_t>(sums[r])};
  }
  return files;
}

Tensor state_tensor(Kind kind, std::size_t unit, const parallel::ParameterStore& store,
                    const optim::Optimizer& optimizer) {
  if (kind == Kind::weights) return store.master(unit);
  return kind == Kind::first_moment ? optimizer.first_moment(unit) : optimizer.second_moment(unit);
}

fs::path begin_directory(const fs::path& directory, const parallel::World& world) {
  const auto partial = PendingDirectory::partial_of(directory);
  world.agree([&] {
    if (world.root()) PendingDirectory::make_empty(partial, directory);
  });
  world.agree([&] {
    if (!appears(partial)) fail("{}: was made by rank 0, and does not appear on this host", partial.string());
  });
  return partial;
}

void publish_directory(const fs::path& partial, const Info& info) {
  write_manifest(partial, info);
  sync_path(partial, info.directory);
  put_in_place(partial, info.directory);
  sync_path(info.directory.parent_path(), info.directory);
}

void save(const parallel::World& world, Info info, const parallel::ParameterStore& store,
          const optim::Optimizer& optimizer, Ops& ops) {
  info.parts = world.size();
  const auto partial = begin_directory(info.directory, world);
  try {
    const int part = store.saved_part();
    world.watchdog().at("saving", file_name(part));
    PartFile written;
    world.agree([&] {
      write_part(partial, info, part, store.units(), state_of(store, optimizer, ops));
      written = verify_written(partial, info, part, store.units());
    });
    info.files = gather(written, part, world);
    world.watchdog().at("saving", manifest_name);
    world.agree([&] {
      if (world.root()) publish_directory(partial, info);
    });
  } catch (...) {
    std::error_code ignored;
    if (world.root()) fs::remove_all(partial, ignored);
    throw;
  }
}

void load_weights(const Info& info, parallel::ParameterStore& store, Ops& ops) {
  PartReader reader(info);
  with_way_out(info, [&] { load_kind(Kind::weights, store, nullptr, ops, reader); });
}

void load_optimizer(const Info& info, const parallel::ParameterStore& store, optim::Optimizer& optimizer,
                    Ops& ops) {
  if (!info.optimizer) {
    fail(
        "{}: holds weights alone, without the optimizer's state, so a run cannot be resumed from it; adapt "
        "it "
        "(job.kind = \"adapt\", job.from) or evaluate it",
        info.directory.string());
  }
  PartReader reader(info);
  with_way_out(info, [&] {
    load_kind(Kind::first_moment, store, &optimizer, ops, reader);
    load_kind(Kind::second_moment, store, &optimizer, ops, reader);
  });
  optimizer.set_updates(info.updates);
}

void prune(const fs::path& run, std::int64_t keep, std::int64_t keep_every) {
  std::error_code ignored;  // what cannot be removed is in nobody's way
  const auto found = step_directories(run, ignored);
  auto surplus =
      std::count_if(found.begin(), found.end(), [](const auto& each) { return each.complete; }) - keep;
  for (const auto& each : found) {
    const bool old = each.complete && surplus-- > 0;
    const bool stays = keep_every > 0 && each.step % keep_every == 0;
    if (!each.complete || (old && !stays)) remove_unused(each.path);
  }
}

}  // namespace ratplus::checkpoint
