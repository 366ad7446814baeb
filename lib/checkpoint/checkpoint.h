// Checkpoint: a directory with one HDF5 file a writing rank and a manifest that is written last. What has no
// manifest is no checkpoint. lib/checkpoint/README.md describes the layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lib/checkpoint/manifest.h"
#include "lib/checkpoint/part.h"
#include "lib/optim/optimizer.h"
#include "parallel/parameter_store.h"
#include "parallel/world.h"

namespace ratplus::checkpoint {

/// run/checkpoints: a directory, or a link to one (checkpoint.directory).
std::filesystem::path checkpoints_of(const std::filesystem::path& run);
/// run/checkpoints/step-00000300.
std::filesystem::path step_directory(const std::filesystem::path& run, std::int64_t step);

/// The complete checkpoints of a run directory, oldest first. Nothing but checkpoints/step-NUMBER is looked at.
std::vector<std::filesystem::path> list(const std::filesystem::path& run);
/// The newest complete checkpoint of a run directory, if there is one.
std::optional<std::filesystem::path> newest(const std::filesystem::path& run);
/// The newest of which the manifest can be read and every part has its size: what --resume takes, unless a checksum differs
/// too. Nothing where none has, or there is none.
std::optional<Info> newest_present(const std::filesystem::path& run);
/// Resolves a given path, a checkpoint or a run directory (then its newest), to a checkpoint's directory.
std::filesystem::path resolve(const std::filesystem::path& given);

/// Writes info.directory, by all ranks together: each its part of every unit (master weights and moments). Written
/// beside, synced and renamed: complete or absent. info's parts are filled in.
void save(const parallel::World& world, Info info, const parallel::ParameterStore& store,
          const optim::Optimizer& optimizer, Ops& ops);

// --- the steps of a save, which BackgroundSave takes one by one ---------------------------------------------------
/// The tensor that holds owned(unit) of one kind: master weights, or a moment.
Tensor state_tensor(Kind kind, std::size_t unit, const parallel::ParameterStore& store,
                    const optim::Optimizer& optimizer);
/// Makes, by the root, the empty directory that is to become this one.
std::filesystem::path begin_directory(const std::filesystem::path& directory, const parallel::World& world);
/// Every rank's own file, on all ranks.
std::vector<PartFile> gather(const PartFile& own, int part, const parallel::World& world);
/// Writes the manifest and gives the directory its name, once all files are there. Root only.
void publish_directory(const std::filesystem::path& partial, const Info& info);

/// Loads master weights into the store, whatever number of ranks wrote them; the caller then publishes them. Each
/// rank reads what it owns only, and talks to no other. The store's units must be those of info.model.
void load_weights(const Info& info, parallel::ParameterStore& store, Ops& ops);
/// Loads the optimizer's moments and update count.
void load_optimizer(const Info& info, const parallel::ParameterStore& store, optim::Optimizer& optimizer,
                    Ops& ops);

/// Removes all but the newest `keep` checkpoints of a run and those of steps that `keep_every` divides (0: none), and
/// what interrupted writes left; whatever else the user keeps beside them stays, and so does a checkpoint that another
/// process reads (in_use.h), until the next call. Root only.
void prune(const std::filesystem::path& run, std::int64_t keep, std::int64_t keep_every = 0);

}  // namespace ratplus::checkpoint
