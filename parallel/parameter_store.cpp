#include "parallel/parameter_store.h"

#include <algorithm>
#include <utility>

#include "kernels/error.h"

namespace ratplus::parallel {

std::int64_t unit_part_size(const UnitLayout& unit, int parts) {
  const std::int64_t blocks = (unit.numel + UnitLayout::alignment - 1) / UnitLayout::alignment;
  return (blocks + parts - 1) / parts * UnitLayout::alignment;
}

UnitRange unit_part(const UnitLayout& unit, int index, int parts) {
  const auto size = unit_part_size(unit, parts);
  return {std::min(index * size, unit.numel), std::min((index + 1) * size, unit.numel)};
}

ParameterStore::ParameterStore(Ops& ops, Communicator& communicator, std::vector<UnitLayout> units,
                               Sharding sharding, Use use, Arena& arena)
    : ops_(ops),
      communicator_(communicator),
      units_(std::move(units)),
      sharding_(communicator.size() == 1 ? Sharding::none : sharding),
      use_(use),
      state_(units_.size()) {
  std::int64_t largest_part = 0;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    allocate_weights(state_[u], u, arena);
    if (use_ == Use::training) allocate_gradient(state_[u], u, arena);
    if (!kept_whole(u)) largest_part = std::max(largest_part, unit_part_size(units_[u], parts()));
  }
  if (largest_part == 0) return;
  weight_slots_.resize(slot_count);
  gradient_slots_.resize(use_ == Use::training ? slot_count : 0);
  arena.category("weights");
  for (auto& slot : weight_slots_) slot.buffer = arena.allocate(ops_.compute_type(), {largest_part * parts()});
  arena.category("gradients");
  for (auto& slot : gradient_slots_) {
    slot.buffer = arena.allocate(DType::f32, {largest_part * parts()});
    slot.part = arena.allocate(DType::f32, {largest_part});
  }
}

void ParameterStore::allocate_weights(Unit& unit, std::size_t index, Arena& arena) {
  const auto part = unit_part_size(units_[index], parts());
  const auto place = communicator_.rank() * part;
  const bool same_type = ops_.compute_type() == DType::f32;
  arena.category("weights");
  if (kept_whole(index)) unit.weights = arena.allocate(ops_.compute_type(), {part * parts()});
  if (sharding_ == Sharding::none) {
    unit.weights_own = unit.weights;
    unit.master = same_type ? unit.weights : arena.allocate(DType::f32, {part * parts()});
    return;
  }
  if (kept_whole(index)) {
    unit.weights_own = unit.weights.slice(0, place, place + part);
  } else {
    unit.weights_own = arena.allocate(ops_.compute_type(), {part});
  }
  unit.master = same_type ? unit.weights_own : arena.allocate(DType::f32, {part});
}

void ParameterStore::allocate_gradient(Unit& unit, std::size_t index, Arena& arena) {
  const auto part = unit_part_size(units_[index], parts());
  arena.category("gradients");
  if (kept_whole(index)) unit.gradient = arena.allocate(DType::f32, {part * parts()});
  unit.gradient_part = sharding_ == Sharding::none ? unit.gradient : arena.allocate(DType::f32, {part});
}

std::int64_t ParameterStore::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& unit : units_) {
    for (const auto& slot : unit.slots) count += slot.numel;
  }
  return count;
}

bool ParameterStore::kept_whole(std::size_t unit) const {
  return sharding_ != Sharding::full || units_[unit].resident;
}

UnitRange ParameterStore::owned(std::size_t unit) const {
  return sharding_ == Sharding::none ? UnitRange{0, units_[unit].numel} : saved(unit);
}

UnitRange ParameterStore::saved(std::size_t unit) const {
  return unit_part(units_[unit], communicator_.rank(), communicator_.size());
}

Tensor ParameterStore::master(std::size_t unit) const { return state_[unit].master.slice(0, 0, owned(unit).size()); }

Tensor ParameterStore::gradient_part(std::size_t unit) const {
  return state_[unit].gradient_part.slice(0, 0, owned(unit).size());
}

Tensor ParameterStore::weights_part(std::size_t unit) const {
  if (ops_.compute_type() == DType::f32) return {};
  return state_[unit].weights_own.slice(0, 0, owned(unit).size());
}

// --- weights --------------------------------------------------------------------------------------------------

/// The slot that holds the unit's weights, or is about to; null if none does.
ParameterStore::Slot* ParameterStore::weight_slot(std::size_t unit) {
  for (auto& slot : weight_slots_) {
    if (slot.unit == static_cast<std::int64_t>(unit)) return &slot;
  }
  return nullptr;
}

/// The slot in which the unit's gradient is being added up; an earlier micro-batch's may still be on its way in
/// another slot.
ParameterStore::Slot* ParameterStore::gradient_slot(std::size_t unit) {
  for (auto& slot : gradient_slots_) {
    if (slot.in_use && slot.unit == static_cast<std::int64_t>(unit)) return &slot;
  }
  return nullptr;
}

/// The slot that has been out of use for longest; null if all are in use.
ParameterStore::Slot* ParameterStore::free_slot(std::vector<Slot>& slots) {
  Slot* oldest = nullptr;
  for (auto& slot : slots) {
    if (!slot.in_use && (oldest == nullptr || slot.last_use < oldest->last_use)) oldest = &slot;
  }
  return oldest;
}

/// The slot that holds or will hold the unit's weights; starts to gather them if none does. Null if no slot is free.
ParameterStore::Slot* ParameterStore::fetch(std::size_t unit) {
  Slot* slot = weight_slot(unit);
  if (slot == nullptr) {
    slot = free_slot(weight_slots_);
    if (slot == nullptr) return nullptr;
    slot->request.wait();
    slot->unit = static_cast<std::int64_t>(unit);
    const auto& own = state_[unit].weights_own;
    slot->request = communicator_.all_gather(slot->buffer.slice(0, 0, own.numel() * parts()), own);
  }
  slot->last_use = ++clock_;
  return slot;
}

void ParameterStore::prefetch(std::size_t unit) {
  if (!kept_whole(unit)) fetch(unit);
}

Tensor ParameterStore::weights(std::size_t unit) {
  if (kept_whole(unit)) {
    state_[unit].gathering.wait();
    return state_[unit].weights;
  }
  Slot* slot = fetch(unit);
  require(slot != nullptr, "weights of {} asked for while {} others are in use", units_[unit].name, slot_count);
  slot->request.wait();
  slot->in_use = true;
  return slot->buffer;
}

void ParameterStore::release(std::size_t unit) {
  if (kept_whole(unit)) return;
  Slot* slot = weight_slot(unit);
  require(slot != nullptr && slot->in_use, "release of {}, which is not in use", units_[unit].name);
  slot->in_use = false;
}

void ParameterStore::publish() {
  for (std::size_t u = 0; u < units_.size(); ++u) {
    if (sharding_ == Sharding::none || !kept_whole(u)) continue;
    state_[u].gathering.wait();
    state_[u].gathering = communicator_.all_gather(state_[u].weights, state_[u].weights_own);
  }
  for (auto& slot : weight_slots_) {  // what they hold is out of date
    slot.request.wait();
    slot.unit = -1;
  }
}

void ParameterStore::publish_masters() {
  for (auto& unit : state_) {
    unit.gathering.wait();
    if (ops_.compute_type() != DType::f32) ops_.copy(unit.weights_own, unit.master);
  }
  publish();
}

// --- gradients ------------------------------------------------------------------------------------------------

void ParameterStore::begin_update() {
  for (auto& unit : state_) unit.gradient_fresh = true;
  started_ = false;
}

void ParameterStore::begin_micro_batch(bool last) {
  first_micro_batch_ = !started_;
  last_micro_batch_ = last;
  started_ = true;
}

Tensor ParameterStore::gradient(std::size_t unit) {
  auto& state = state_[unit];
  if (kept_whole(unit)) {
    if (std::exchange(state.gradient_fresh, false)) ops_.fill(state.gradient, 0);
    return state.gradient;
  }
  Slot* slot = gradient_slot(unit);
  if (slot == nullptr) {
    slot = free_slot(gradient_slots_);
    require(slot != nullptr, "gradient of {} asked for while {} others are in use", units_[unit].name, slot_count);
    settle_gradient(*slot);
    slot->unit = static_cast<std::int64_t>(unit);
    slot->in_use = true;
    ops_.fill(slot->buffer, 0);
  }
  return slot->buffer;
}

void ParameterStore::gradient_ready(std::size_t unit) {
  auto& state = state_[unit];
  if (kept_whole(unit)) {  // kept and added to over the micro-batches: it travels once
    if (!last_micro_batch_ || parts() == 1) return;
    state.reducing = sharding_ == Sharding::none ? communicator_.all_reduce(state.gradient)
                                                 : communicator_.reduce_scatter(state.gradient_part, state.gradient);
    return;
  }
  Slot* slot = gradient_slot(unit);
  require(slot != nullptr, "gradient of {} is not in use", units_[unit].name);
  const auto part = unit_part_size(units_[unit], parts());
  slot->add_part = !first_micro_batch_;
  slot->request = communicator_.reduce_scatter(slot->add_part ? slot->part.slice(0, 0, part) : state.gradient_part,
                                               slot->buffer.slice(0, 0, part * parts()));
  slot->in_use = false;
  slot->last_use = ++clock_;
}

/// Waits for the sum that a slot carries and adds it to its unit's part.
void ParameterStore::settle_gradient(Slot& slot) {
  slot.request.wait();
  if (slot.unit >= 0 && slot.add_part) {
    const auto unit = static_cast<std::size_t>(slot.unit);
    ops_.add(state_[unit].gradient_part, slot.part.slice(0, 0, unit_part_size(units_[unit], parts())));
  }
  slot.unit = -1;
  slot.add_part = false;
}

void ParameterStore::finish_gradients() {
  for (auto& unit : state_) unit.reducing.wait();
  for (auto& slot : gradient_slots_) settle_gradient(slot);
}

}  // namespace ratplus::parallel
