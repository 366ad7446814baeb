#include "parallel/parameter_store.h"

#include <algorithm>
#include <utility>

#include "kernels/error.h"

namespace ratplus::parallel {

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
  weight_buffers_.resize(buffers_each);
  gradient_buffers_.resize(use_ == Use::training ? buffers_each : 0);
  arena.category("weights");
  for (auto& buffer : weight_buffers_)
    buffer.whole = arena.allocate(ops_.compute_type(), {largest_part * parts()});
  arena.category("gradients");
  for (auto& buffer : gradient_buffers_) {
    buffer.whole = arena.allocate(DType::f32, {largest_part * parts()});
    buffer.part = arena.allocate(DType::f32, {largest_part});
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

bool ParameterStore::kept_whole(std::size_t unit) const {
  return sharding_ != Sharding::full || units_[unit].resident;
}

UnitRange ParameterStore::owned(std::size_t unit) const {
  return sharding_ == Sharding::none ? UnitRange{0, units_[unit].numel} : saved(unit);
}

UnitRange ParameterStore::saved(std::size_t unit) const {
  return unit_part(units_[unit], communicator_.rank(), communicator_.size());
}

Tensor ParameterStore::master(std::size_t unit) const {
  return state_[unit].master.slice(0, 0, owned(unit).size());
}

Tensor ParameterStore::gradient_part(std::size_t unit) const {
  return state_[unit].gradient_part.slice(0, 0, owned(unit).size());
}

Tensor ParameterStore::weights_part(std::size_t unit) const {
  if (ops_.compute_type() == DType::f32) return {};
  return state_[unit].weights_own.slice(0, 0, owned(unit).size());
}

// --- weights --------------------------------------------------------------------------------------------------

/// The buffer that holds the unit's weights, or is about to; null if none does.
ParameterStore::PassingBuffer* ParameterStore::weight_buffer(std::size_t unit) {
  for (auto& buffer : weight_buffers_) {
    if (buffer.unit == static_cast<std::int64_t>(unit)) return &buffer;
  }
  return nullptr;
}

/// The buffer in which the unit's gradient is being added up; an earlier micro-batch's may still be on its way in
/// another buffer.
ParameterStore::PassingBuffer* ParameterStore::gradient_buffer(std::size_t unit) {
  for (auto& buffer : gradient_buffers_) {
    if (buffer.in_use && buffer.unit == static_cast<std::int64_t>(unit)) return &buffer;
  }
  return nullptr;
}

/// The buffer that has been out of use for longest; null if all are in use.
ParameterStore::PassingBuffer* ParameterStore::free_buffer(std::vector<PassingBuffer>& buffers) {
  PassingBuffer* oldest = nullptr;
  for (auto& buffer : buffers) {
    if (!buffer.in_use && (oldest == nullptr || buffer.last_use < oldest->last_use)) oldest = &buffer;
  }
  return oldest;
}

/// The buffer that holds or will hold the unit's weights; starts to gather them if none does. Null if no buffer is free.
ParameterStore::PassingBuffer* ParameterStore::fetch(std::size_t unit) {
  PassingBuffer* buffer = weight_buffer(unit);
  if (buffer == nullptr) {
    buffer = free_buffer(weight_buffers_);
    if (buffer == nullptr) return nullptr;
    buffer->request.wait();
    buffer->unit = static_cast<std::int64_t>(unit);
    const auto& own = state_[unit].weights_own;
    buffer->request = communicator_.all_gather(buffer->whole.slice(0, 0, own.numel() * parts()), own);
  }
  buffer->last_use = ++clock_;
  return buffer;
}

void ParameterStore::prefetch(std::size_t unit) {
  if (!kept_whole(unit)) fetch(unit);
}

Tensor ParameterStore::weights(std::size_t unit) {
  if (kept_whole(unit)) {
    state_[unit].gathering.wait();
    return state_[unit].weights;
  }
  PassingBuffer* buffer = fetch(unit);
  require(buffer != nullptr, "weights of {} asked for while {} others are in use", units_[unit].name,
          buffers_each);
  buffer->request.wait();
  buffer->in_use = true;
  return buffer->whole;
}

void ParameterStore::release(std::size_t unit) {
  communicator_.progress();
  if (kept_whole(unit)) return;
  PassingBuffer* buffer = weight_buffer(unit);
  require(buffer != nullptr && buffer->in_use, "release of {}, which is not in use", units_[unit].name);
  buffer->in_use = false;
}

void ParameterStore::publish() {
  for (std::size_t u = 0; u < units_.size(); ++u) {
    if (sharding_ == Sharding::none || !kept_whole(u)) continue;
    state_[u].gathering.wait();
    state_[u].gathering = communicator_.all_gather(state_[u].weights, state_[u].weights_own);
  }
  for (auto& buffer : weight_buffers_) {  // what they hold is out of date
    buffer.request.wait();
    buffer.unit = -1;
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

void ParameterStore::wait_all() {
  for (auto& unit : state_) {
    unit.gathering.wait();
    unit.reducing.wait();
  }
  for (auto& buffer : weight_buffers_) buffer.request.wait();
  for (auto& buffer : gradient_buffers_) buffer.request.wait();
}

void ParameterStore::begin_update() {
  for (auto& unit : state_) unit.gradient_fresh = true;
  started_ = false;
}

void ParameterStore::begin_micro_batch(bool last) {
  first_micro_batch_ = !started_;
  last_micro_batch_ = last;
  started_ = true;
}

ParameterStore::Gradient ParameterStore::gradient(std::size_t unit) {
  auto& state = state_[unit];
  if (kept_whole(unit)) return {state.gradient, std::exchange(state.gradient_fresh, false)};
  PassingBuffer* buffer = gradient_buffer(unit);
  if (buffer == nullptr) {
    buffer = free_buffer(gradient_buffers_);
    require(buffer != nullptr, "gradient of {} asked for while {} others are in use", units_[unit].name,
            buffers_each);
    settle_gradient(*buffer);
    buffer->unit = static_cast<std::int64_t>(unit);
    buffer->in_use = true;
    return {buffer->whole, true};
  }
  return {buffer->whole, false};
}

void ParameterStore::gradient_ready(std::size_t unit) {
  communicator_.progress();
  auto& state = state_[unit];
  if (kept_whole(unit)) {  // kept and added to over the micro-batches: it travels once
    if (!last_micro_batch_ || parts() == 1) return;
    state.reducing = sharding_ == Sharding::none
                         ? communicator_.all_reduce(state.gradient)
                         : communicator_.reduce_scatter(state.gradient_part, state.gradient);
    return;
  }
  PassingBuffer* buffer = gradient_buffer(unit);
  require(buffer != nullptr, "gradient of {} is not in use", units_[unit].name);
  const auto part = unit_part_size(units_[unit], parts());
  buffer->add_part = !first_micro_batch_;
  buffer->request =
      communicator_.reduce_scatter(buffer->add_part ? buffer->part.slice(0, 0, part) : state.gradient_part,
                                   buffer->whole.slice(0, 0, part * parts()));
  buffer->in_use = false;
  buffer->last_use = ++clock_;
}

/// Waits for the sum that a buffer carries and adds it to its unit's part.
void ParameterStore::settle_gradient(PassingBuffer& buffer) {
  buffer.request.wait();
  if (buffer.unit >= 0 && buffer.add_part) {
    const auto unit = static_cast<std::size_t>(buffer.unit);
    ops_.add(state_[unit].gradient_part, buffer.part.slice(0, 0, unit_part_size(units_[unit], parts())));
  }
  buffer.unit = -1;
  buffer.add_part = false;
}

void ParameterStore::finish_gradients() {
  for (auto& unit : state_) unit.reducing.wait();
  for (auto& buffer : gradient_buffers_) settle_gradient(buffer);
}

}  // namespace ratplus::parallel
