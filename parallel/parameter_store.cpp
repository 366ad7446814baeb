#include "parallel/parameter_store.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ratplus::parallel {

ParameterStore::ParameterStore(Ops& ops, const MeshGroups& groups, std::vector<UnitLayout> units,
                               const Settings& settings, Use use, Watchdog& watchdog, Arena& arena)
    : ops_(ops),
      groups_(groups),
      watchdog_(watchdog),
      units_(std::move(units)),
      settings_(settings),
      use_(use),
      state_(units_.size()) {
  if (mesh().shards == 1) settings_.shard = Sharding::none;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    allocate_weights(state_[u], u, arena);
    if (use_ == Use::training) allocate_gradient(state_[u], u, arena);
  }
  allocate_buffers(arena);
}

void ParameterStore::allocate_weights(Unit& unit, std::size_t index, Arena& arena) {
  const auto part = part_size(index);
  const auto place = mesh().shard * part;
  const DType type = weights_type(index);
  arena.category("weights");
  if (kept_whole(index)) {
    unit.weights = arena.allocate(type, {whole_size(index)});
    unit.weights_own = unit.weights.slice(0, place, place + part);
  } else {
    unit.weights_own = arena.allocate(type, {part});
  }
  unit.master = type == DType::f32 ? unit.weights_own : arena.allocate(DType::f32, {part});
}

void ParameterStore::allocate_gradient(Unit& unit, std::size_t index, Arena& arena) {
  const auto part = part_size(index);
  arena.category("gradients");
  if (kept_whole(index)) {
    unit.gradient = arena.allocate(DType::f32, {whole_size(index)});
    unit.gradient_part = unit.gradient.slice(0, mesh().shard * part, (mesh().shard + 1) * part);
  } else {
    unit.gradient_part = arena.allocate(DType::f32, {part});
  }
  if (rounds_over_replicas(index) && mesh().replicas > 1)
    unit.rounded_part = arena.allocate(DType::bf16, {part});
}

/// Weights: one in use, the others on their way; or one for each unit, where they are kept. Gradients: one forming, the
/// others on their way.
void ParameterStore::allocate_buffers(Arena& arena) {
  if (mesh().shards == 1) return;
  std::int64_t passing = 0;         // units that are gathered when they are needed
  std::int64_t largest = 0;         // part of one of them
  std::int64_t largest_of_all = 0;  // part of any unit
  for (std::size_t u = 0; u < units_.size(); ++u) {
    if (!units_[u].full_precision) largest_of_all = std::max(largest_of_all, part_size(u));
    if (kept_whole(u)) continue;
    require(!units_[u].full_precision, "unit {} of full precision is not resident", units_[u].name);
    ++passing;
    largest = std::max(largest, part_size(u));
  }
  const std::int64_t several = settings_.prefetch + 1;
  arena.category("gathered weights");
  weight_buffers_.resize(
      static_cast<std::size_t>(settings_.keep_weights ? passing : std::min(several, passing)));
  for (auto& buffer : weight_buffers_) {
    buffer.whole = arena.allocate(ops_.compute_type(), {largest * mesh().shards});
  }
  if (use_ == Use::evaluation) return;
  arena.category("passing gradients");
  const std::int64_t travelling = rounds() ? largest_of_all : largest;
  if (travelling == 0) return;
  // In bf16 the one that forms is a buffer of its own.
  gradient_buffers_.resize(static_cast<std::size_t>(rounds() ? settings_.prefetch : several));
  for (auto& buffer : gradient_buffers_) {
    buffer.whole = arena.allocate(type_within_hosts(settings_.reduce), {travelling * mesh().shards});
    buffer.part = arena.allocate(type_within_hosts(settings_.reduce), {travelling});
  }
  if (!rounds() || largest == 0) return;
  forming_.whole = arena.allocate(DType::f32, {largest * mesh().shards});
  unrounded_part_ = arena.allocate(DType::f32, {largest});
}

bool ParameterStore::kept_whole(std::size_t unit) const {
  return settings_.shard != Sharding::full || units_[unit].resident;
}

/// Of whole checkpoint parts, so that what a rank saves is its own.
std::int64_t ParameterStore::part_size(std::size_t unit) const {
  return unit_part_size(units_[unit], mesh().ranks()) * mesh().replicas;
}

UnitRange ParameterStore::owned(std::size_t unit) const {
  const auto numel = units_[unit].numel;
  const auto begin = mesh().shard * part_size(unit);
  return {std::min(begin, numel), std::min(begin + part_size(unit), numel)};
}

UnitRange ParameterStore::saved(std::size_t unit) const {
  return unit_part(units_[unit], saved_part(), mesh().ranks());
}

Tensor ParameterStore::master(std::size_t unit) const {
  return state_[unit].master.slice(0, 0, owned(unit).size());
}

Tensor ParameterStore::gradient_part(std::size_t unit) const {
  return state_[unit].gradient_part.slice(0, 0, owned(unit).size());
}

Tensor ParameterStore::weights_part(std::size_t unit) const {
  if (weights_type(unit) == DType::f32) return {};
  return state_[unit].weights_own.slice(0, 0, owned(unit).size());
}

Tensor ParameterStore::whole_weights(std::size_t unit) {
  if (!kept_whole(unit)) return {};
  state_[unit].gathering.wait();
  return state_[unit].weights.slice(0, 0, units_[unit].numel);
}

// --- weights --------------------------------------------------------------------------------------------------

/// The buffer that holds the unit's weights, or is about to; null if none does.
ParameterStore::PassingBuffer* ParameterStore::weight_buffer(std::size_t unit) {
  for (auto& buffer : weight_buffers_) {
    if (buffer.unit == static_cast<std::int64_t>(unit)) return &buffer;
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
    buffer->request = groups_.shards->all_gather(buffer->whole.slice(0, 0, whole_size(unit)),
                                                 state_[unit].weights_own, units_[unit].name);
  }
  buffer->last_use = ++clock_;
  return buffer;
}

void ParameterStore::prefetch(std::size_t unit) {
  if (!kept_whole(unit)) fetch(unit);
}

void ParameterStore::follow(Timeline* timeline) {
  timeline_ = timeline;
  groups_.shards->follow(timeline, Timeline::Lane::shards);
  groups_.replicas->follow(timeline, Timeline::Lane::replicas);
  if (groups_.inside != nullptr) groups_.inside->follow(timeline, Timeline::Lane::replicas);
}

/// For the timeline: the pass comes to a unit.
void ParameterStore::note(std::string_view kind, std::size_t unit) {
  if (timeline_ != nullptr) timeline_->at(kind, units_[unit].name);
}

Tensor ParameterStore::weights(std::size_t unit) {
  watchdog_.at(phase(), units_[unit].name);
  if (kept_whole(unit)) {
    state_[unit].gathering.wait();
    note(phase(), unit);
    return state_[unit].weights;
  }
  PassingBuffer* buffer = fetch(unit);
  require(buffer != nullptr, "weights of {} asked for while {} others are in use", units_[unit].name,
          weight_buffers_.size());
  buffer->request.wait();
  buffer->in_use = true;
  note(phase(), unit);
  return buffer->whole;
}

void ParameterStore::release(std::size_t unit) {
  groups_.shards->progress();
  if (kept_whole(unit)) return;
  PassingBuffer* buffer = weight_buffer(unit);
  require(buffer != nullptr && buffer->in_use, "release of {}, which is not in use", units_[unit].name);
  buffer->in_use = false;
}

void ParameterStore::publish(std::size_t unit) {
  if (mesh().shards == 1) return;
  auto& state = state_[unit];
  if (kept_whole(unit)) {
    state.gathering.wait();
    state.gathering = groups_.shards->all_gather(state.weights, state.weights_own, units_[unit].name);
  } else if (PassingBuffer* buffer = weight_buffer(unit)) {  // what it holds is out of date
    buffer->request.wait();
    buffer->unit = -1;
  }
}

void ParameterStore::publish_masters() {
  for (std::size_t u = 0; u < units_.size(); ++u) {
    state_[u].gathering.wait();
    if (weights_type(u) != DType::f32) ops_.copy(state_[u].weights_own, state_[u].master);
    publish(u);
  }
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
  backward_ = false;
}

void ParameterStore::begin_micro_batch(bool last) {
  first_micro_batch_ = !started_;
  last_micro_batch_ = last;
  started_ = true;
  backward_ = false;
}

/// The buffer in which the unit's gradient is forming; an earlier micro-batch's may still be on its way in another.
ParameterStore::PassingBuffer* ParameterStore::gradient_buffer(std::size_t unit) {
  const auto forms_here = [&](const PassingBuffer& buffer) {
    return buffer.in_use && buffer.unit == static_cast<std::int64_t>(unit);
  };
  if (rounds()) return forms_here(forming_) ? &forming_ : nullptr;
  const auto found = std::find_if(gradient_buffers_.begin(), gradient_buffers_.end(), forms_here);
  return found == gradient_buffers_.end() ? nullptr : &*found;
}

/// A buffer for the unit's gradient; what it carried before has arrived.
ParameterStore::PassingBuffer* ParameterStore::settled_gradient_buffer(std::size_t unit) {
  PassingBuffer* buffer = free_buffer(gradient_buffers_);
  require(buffer != nullptr, "gradient of {} asked for while {} others are in use", units_[unit].name,
          gradient_buffers_.size());
  settle_gradient(*buffer);
  buffer->unit = static_cast<std::int64_t>(unit);
  return buffer;
}

/// Gaps between parameters are zero in memory that is new, and stay so while units of one layout form there, as a model's
/// blocks do; where another comes, they are elsewhere.
void ParameterStore::clear_gaps(PassingBuffer& buffer, std::size_t unit) {
  const auto before = std::exchange(buffer.formed, static_cast<std::int64_t>(unit));
  if (before >= 0 && !same_places(units_[static_cast<std::size_t>(before)], units_[unit]))
    ops_.fill(buffer.whole, 0);
}

ParameterStore::Gradient ParameterStore::gradient(std::size_t unit) {
  backward_ = true;
  watchdog_.at(phase(), units_[unit].name);
  note(phase(), unit);
  auto& state = state_[unit];
  if (kept_whole(unit)) return {state.gradient, std::exchange(state.gradient_fresh, false)};
  if (PassingBuffer* buffer = gradient_buffer(unit)) return {buffer->whole, false};
  PassingBuffer* buffer = rounds() ? &forming_ : settled_gradient_buffer(unit);
  require(!buffer->in_use, "gradient of {} asked for while another one forms", units_[unit].name);
  buffer->unit = static_cast<std::int64_t>(unit);
  buffer->in_use = true;
  clear_gaps(*buffer, unit);
  return {buffer->whole, true};
}

void ParameterStore::gradient_ready(std::size_t unit) {
  groups_.shards->progress();
  if (kept_whole(unit)) {  // kept and added to over the micro-batches: it travels once
    if (last_micro_batch_) scatter_in_place(unit);
    return;
  }
  PassingBuffer* formed = gradient_buffer(unit);
  require(formed != nullptr, "gradient of {} is not in use", units_[unit].name);
  formed->in_use = false;
  if (!rounds()) return scatter(unit, *formed);
  PassingBuffer* buffer = settled_gradient_buffer(unit);
  ops_.copy(buffer->whole.slice(0, 0, whole_size(unit)), formed->whole.slice(0, 0, whole_size(unit)));
  scatter(unit, *buffer);
}

/// A whole gradient that is kept: starts its sum over the ranks.
void ParameterStore::scatter_in_place(std::size_t unit) {
  auto& state = state_[unit];
  if (mesh().shards == 1) return sum_over_replicas(unit);
  if (rounds(unit)) {
    PassingBuffer* buffer = settled_gradient_buffer(unit);
    ops_.copy(buffer->whole.slice(0, 0, whole_size(unit)), state.gradient);
    return scatter(unit, *buffer);
  }
  state.reducing = groups_.shards->reduce_scatter(state.gradient_part, state.gradient, units_[unit].name);
  if (mesh().replicas == 1) return;
  scattered_.push_back(unit);
  settle_scattered(static_cast<std::size_t>(settings_.prefetch));
}

/// The sum over the shard group, from a buffer that holds the whole gradient in the type it travels in.
void ParameterStore::scatter(std::size_t unit, PassingBuffer& buffer) {
  buffer.adds = !kept_whole(unit) && !first_micro_batch_;
  buffer.complete = last_micro_batch_;
  const bool direct = !buffer.adds && !rounds();
  buffer.request = groups_.shards->reduce_scatter(
      direct ? state_[unit].gradient_part : buffer.part.slice(0, 0, part_size(unit)),
      buffer.whole.slice(0, 0, whole_size(unit)), units_[unit].name);
  buffer.last_use = ++clock_;
}

/// Waits for the group's sum that a buffer carries, and brings it into its unit's part.
void ParameterStore::settle_gradient(PassingBuffer& buffer) {
  buffer.request.wait();
  if (buffer.unit < 0) return;
  const auto unit = static_cast<std::size_t>(std::exchange(buffer.unit, -1));
  const Tensor part = buffer.part.slice(0, 0, part_size(unit));
  const Tensor& sum = state_[unit].gradient_part;
  if (rounds() && buffer.adds) {
    const Tensor unrounded = unrounded_part_.slice(0, 0, part_size(unit));
    ops_.copy(unrounded, part);
    ops_.add(sum, unrounded);
  } else if (rounds()) {
    ops_.copy(sum, part);
  } else if (buffer.adds) {
    ops_.add(sum, part);
  }
  if (buffer.complete) sum_over_replicas(unit);
}

/// Passes on the oldest of the groups' sums that form in place to the sum over the groups, until `left` of them are. Not
/// at once: a transport that has to wait for the one to start the other should have had time for it.
void ParameterStore::settle_scattered(std::size_t left) {
  while (scattered_.size() > left) {
    const auto unit = scattered_.front();
    scattered_.pop_front();
    auto& state = state_[unit];
    if (rounds_over_replicas(unit) || groups_.inside != nullptr) {
      state.reducing.wait();
      sum_over_replicas(unit);
      continue;
    }
    Request scatter = std::move(state.reducing);
    state.reducing =
        groups_.replicas->all_reduce_after(std::move(scatter), state.gradient_part, units_[unit].name);
  }
}

/// The group's sum is there, of all micro-batches: starts that over the groups.
void ParameterStore::sum_over_replicas(std::size_t unit) {
  if (mesh().replicas == 1) return;
  if (groups_.inside == nullptr) return reduce_over_replicas(unit);
  auto& state = state_[unit];
  state.reducing =
      groups_.inside->reduce_scatter(own_place(state.gradient_part), state.gradient_part, units_[unit].name);
  inside_.push_back(unit);
  settle_inside(static_cast<std::size_t>(settings_.prefetch));
}

/// The part on its way over the replicas, in the type that it travels in there.
Tensor ParameterStore::replicas_sum(std::size_t unit) const {
  return rounds_over_replicas(unit) ? state_[unit].rounded_part : state_[unit].gradient_part;
}

/// The place of a part that this rank sums for the replicas of its host: all of it where it is the only one there.
Tensor ParameterStore::own_place(const Tensor& sum) const {
  if (groups_.inside == nullptr) return sum;
  const auto place = sum.numel() / groups_.inside->size();
  return sum.slice(0, groups_.inside->rank() * place, (groups_.inside->rank() + 1) * place);
}

void ParameterStore::reduce_over_replicas(std::size_t unit) {
  auto& state = state_[unit];
  const Tensor travelling = own_place(replicas_sum(unit));
  if (rounds_over_replicas(unit)) ops_.copy(travelling, own_place(state.gradient_part));
  state.reducing = groups_.replicas->all_reduce(travelling, units_[unit].name);
}

/// As settle_scattered, of the sums over the replicas of a host.
void ParameterStore::settle_inside(std::size_t left) {
  while (inside_.size() > left) {
    const auto unit = inside_.front();
    inside_.pop_front();
    state_[unit].reducing.wait();
    reduce_over_replicas(unit);
  }
}

void ParameterStore::finish_gradients() {
  backward_ = false;
  if (timeline_ != nullptr) timeline_->at("sums of gradients");
  settle_scattered(0);
  // In the order in which they were sent: several may be a unit's, of one micro-batch after another.
  std::vector<PassingBuffer*> sent;
  for (auto& buffer : gradient_buffers_) sent.push_back(&buffer);
  std::sort(sent.begin(), sent.end(), [](auto* a, auto* b) { return a->last_use < b->last_use; });
  for (auto* buffer : sent) settle_gradient(*buffer);
  settle_inside(0);
  for (std::size_t u = 0; u < state_.size() && groups_.inside != nullptr; ++u) {
    auto& unit = state_[u];
    unit.reducing.wait();
    unit.reducing = groups_.inside->all_gather(replicas_sum(u), own_place(replicas_sum(u)), units_[u].name);
  }
  for (std::size_t u = 0; u < state_.size(); ++u) {
    auto& unit = state_[u];
    unit.reducing.wait();
    if (rounds_over_replicas(u) && mesh().replicas > 1) ops_.copy(unit.gradient_part, unit.rounded_part);
  }
  if (timeline_ != nullptr) timeline_->at("update");
}

}  // namespace ratplus::parallel
