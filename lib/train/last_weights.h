// The last weights of a run as safetensors, for other programs (checkpoint.export).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "lib/config/job.h"
#include "parallel/world.h"

namespace ratplus::train {

/// weights.safetensors in the run's directory.
std::filesystem::path last_weights_file(const config::JobConfig& job);

/// Writes the weights of the run's newest checkpoint there, in the type checkpoint.export, in the place of an older file;
/// returns its name, or nothing where the job asks for none. The root writes; `progress` gets the bytes that it has
/// written since the last call. Throws AgreedError, on all ranks alike, where it cannot be written, or where a signal
/// (StopSignal) comes meanwhile: then nothing is left of it, and `--resume` writes it.
std::optional<std::filesystem::path> export_last_weights(const config::JobConfig& job,
                                                         const parallel::World& world,
                                                         const std::function<void(std::int64_t)>& progress);

}  // namespace ratplus::train
