#include "lib/checkpoint/background_save.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/background_thread.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/start_thread.h"
#include "kernels/buffer.h"
#include "lib/checkpoint/checkpoint.h"

namespace ratplus::checkpoint {
namespace {

template <typename T>
bool ready(const std::future<T>& result) {
  return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

std::int64_t elements_of_part(const parallel::ParameterStore& store) {
  std::int64_t elements = 0;
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) elements += store.saved(unit).size();
  return elements * static_cast<std::int64_t>(all_kinds.size());
}

}  // namespace

BackgroundSave::~BackgroundSave() {
  abandoned_ = true;
  if (writing_.valid()) writing_.wait();
  if (publishing_.valid()) publishing_.wait();
}

bool BackgroundSave::prepare(const parallel::ParameterStore& store, Device device) {
  const auto bytes = elements_of_part(store) * static_cast<std::int64_t>(sizeof(float));
  // This rank's share, since the others of its host take as much at the same moment; a tenth is left to whatever else
  // needs some.
  const auto available = world_.host_memory();
  const auto needed = bytes / 10 * 11;
  if (world_.max(std::int64_t{available >= 0 && needed > available}) != 0) return false;
  world_.agree([&] { host_ = HostMemory(device, bytes); });
  return true;
}

void BackgroundSave::copy(const parallel::ParameterStore& store, const optim::Optimizer& optimizer,
                          Ops& ops) {
  places_.assign(all_kinds.size(), {});
  std::int64_t next = 0;
  for (const Kind kind : all_kinds) {
    for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
      const auto saved = store.saved(unit);
      places_[static_cast<std::size_t>(kind)].push_back(next);
      if (saved.size() == 0) continue;
      const auto first = saved.begin - store.owned(unit).begin;
      ops.download(host_.as<float>().data() + next,
                   state_tensor(kind, unit, store, optimizer).slice(0, first, first + saved.size()));
      next += saved.size();
    }
  }
}

void BackgroundSave::start(Info info, const parallel::ParameterStore& store,
                           const optim::Optimizer& optimizer, Ops& ops, std::function<void()> published) {
  require(stage_ == Stage::idle, "a save begins while another is under way");
  require(host_.bytes() == elements_of_part(store) * static_cast<std::int64_t>(sizeof(float)),
          "a save without its memory");
  info_ = std::move(info);
  info_.parts = world_.size();
  published_ = std::move(published);
  units_ = store.units();
  part_ = store.saved_part();
  partial_ = begin_directory(info_.directory, world_);
  world_.watchdog().at("saving", file_name(part_));
  const ElapsedTime elapsed;
  world_.agree([&] { copy(store, optimizer, ops); });
  copy_seconds_ = elapsed.seconds();
  stage_ = Stage::writing;
  writing_ = start_async([this] { return write(); });
}

/// On a thread of its own.
PartFile BackgroundSave::write() {
  leave_signals_to_main_thread();
  write_part(partial_, info_, part_, units_,
             [&](Kind kind, std::size_t unit, parallel::UnitRange range, std::span<float> out) {
               if (abandoned_) fail("{}: abandoned", info_.directory.string());
               const auto part = parallel::unit_part(units_[unit], part_, info_.parts);
               const auto first = places_[static_cast<std::size_t>(kind)][unit] + range.begin - part.begin;
               std::copy_n(host_.as<float>().data() + first, range.size(), out.data());
             });
  return verify_written(partial_, info_, part_, units_);
}

/// On a thread of the root's.
void BackgroundSave::publish() {
  leave_signals_to_main_thread();
  publish_directory(partial_, info_);
  if (published_) published_();
}

bool BackgroundSave::all_ranks_have(const std::function<bool()>& come_far_enough, bool wait) const {
  return wait || world_.max(std::int64_t{!come_far_enough()}) == 0;
}

bool BackgroundSave::advance(bool wait) {
  if (stage_ == Stage::idle) return false;
  try {
    if (stage_ == Stage::writing) {
      if (!all_ranks_have([&] { return ready(writing_); }, wait)) return false;
      PartFile own;
      world_.agree([&] { own = writing_.get(); });
      info_.files = gather(own, part_, world_);
      if (world_.root()) publishing_ = start_async([this] { publish(); });
      stage_ = Stage::publishing;
    }
    if (!all_ranks_have([&] { return !world_.root() || ready(publishing_); }, wait)) return false;
    world_.agree([&] {
      if (world_.root()) publishing_.get();
    });
  } catch (...) {
    give_up();
    throw;
  }
  stage_ = Stage::idle;
  return true;
}

/// All ranks have come to the end of their work, or failed: nobody writes there any more.
void BackgroundSave::give_up() {
  stage_ = Stage::idle;
  std::error_code ignored;
  if (world_.root()) std::filesystem::remove_all(partial_, ignored);
}

}  // namespace ratplus::checkpoint
