// BackgroundSave: a checkpoint written beside training. The step stops only to copy this rank's part to
// host memory; a thread writes, syncs and verifies its file; when all ranks' files are there, the root's thread
// publishes them under the manifest.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <vector>

#include "kernels/host_memory.h"
#include "lib/checkpoint/manifest.h"
#include "lib/checkpoint/part.h"
#include "lib/optim/optimizer.h"
#include "parallel/parameter_store.h"
#include "parallel/world.h"

namespace ratplus::checkpoint {

/// All ranks make the same calls in the same order, from their main threads: MPI is used there alone, and what the
/// threads have done is agreed on between steps.
class BackgroundSave {
 public:
  explicit BackgroundSave(const parallel::World& world) : world_(world) {}
  /// Abandons what is under way: what has no manifest is no checkpoint.
  ~BackgroundSave();
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  /// Takes the host memory for a copy of each rank's part, once for all saves. False, on all ranks, where one of them
  /// has not enough: then this object is of no use. `device`: where the state is.
  bool prepare(const parallel::ParameterStore& store, Device device);

  /// Copies the state and begins to write info.directory; none may be under way. `published` runs on the root's
  /// thread once it has its name.
  void start(Info info, const parallel::ParameterStore& store, const optim::Optimizer& optimizer, Ops& ops,
             std::function<void()> published);
  /// Of the last copy, this rank's: what it took, and how much it was.
  double copy_seconds() const { return copy_seconds_; }
  std::int64_t copied_bytes() const { return host_.bytes(); }
  bool active() const { return stage_ != Stage::idle; }
  /// Goes on with what is under way where all ranks have come far enough, or, with `wait`, to its end. True when that
  /// was its end. Throws Error, on all ranks alike, where one of them could not write; then nothing is left of it.
  bool advance(bool wait);

 private:
  enum class Stage { idle, writing, publishing };

  void copy(const parallel::ParameterStore& store, const optim::Optimizer& optimizer, Ops& ops);
  PartFile write();
  void publish();
  bool all_ranks_have(const std::function<bool()>& come_far_enough, bool wait) const;
  void give_up();

  const parallel::World& world_;
  Stage stage_ = Stage::idle;
  Info info_;
  std::filesystem::path partial_;
  std::vector<parallel::UnitLayout> units_;
  int part_ = 0;  ///< this rank's
  std::function<void()> published_;

  /// This rank's part: for each kind, of every unit the range that it saves, one after another. Kept from save to save.
  HostMemory host_;
  std::vector<std::vector<std::int64_t>> places_;  ///< first element of [kind][unit] in host_

  double copy_seconds_ = 0;
  std::atomic<bool> abandoned_ = false;
  std::future<PartFile> writing_;
  std::future<void> publishing_;
};

}  // namespace ratplus::checkpoint
