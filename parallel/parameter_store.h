// ParameterStore: where a model's parameters and gradients are, over the ranks. The model asks it for a unit's
// weights and for room for the unit's gradient, and does not know whether they were gathered just now.
#pragma once

#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/sharding.h"
#include "parallel/timeline.h"
#include "parallel/unit.h"
#include "parallel/watchdog.h"

namespace ratplus::parallel {

/// Purpose of the parameters and activations: evaluation keeps no gradients, and one layer's activations.
enum class Use { training, evaluation };

/// Parameters in flat units, kept as Sharding says; "part" is a rank's part in its shard group:
///
///     sharding    weights (compute type)            master (f32), optimizer state    gradient (f32)
///     none        whole                             whole                            whole, summed over ranks
///     optimizer   whole                             part                             whole; then the sum's part, in
///                                                                                    its place there
///     full        part; whole while in use, in a    part                             the sum's part; whole while it
///                 few buffers in turn                                                forms, in a few buffers in turn
///
/// A resident unit (the embedding, which is used at both ends of a pass) is whole in `full` too, as to weights and
/// gradient. A unit of full precision (biases of gates) has float32 weights, and its gradient is summed in float32.
/// Groups of one rank are Sharding::none. Where the compute type is f32, weights and master are the same memory as far as
/// both are kept.
///
/// Gradients are summed in two steps: over the shard group, of which each rank gets its part, then, once an update,
/// over the replicas. Both go on beside the computation. Where the mesh has two levels, the second is in f32 over the
/// replicas of a host, each of which gets a place of the part, then, rounded to bf16, over the hosts; the rounded sums are
/// gathered within the host, so that all replicas have the same bits.
///
/// One update: begin_update(); for each micro-batch begin_micro_batch(last), then the model's calls; then
/// finish_gradients(), and for each unit a change to master(u) by gradient_part(u), and publish(u).
class ParameterStore {
 public:
  /// A unit's gradient, flat f32. Where it is fresh, what is there means nothing (but zeros in the gaps between
  /// parameters), and the first contribution to each parameter replaces it; else contributions are added.
  struct Gradient {
    Tensor flat;
    bool fresh = true;
  };

  ParameterStore(Ops& ops, const MeshGroups& groups, std::vector<UnitLayout> units, const Settings& settings,
                 Use use, Watchdog& watchdog, Arena& arena);

  const std::vector<UnitLayout>& units() const { return units_; }
  const Mesh& mesh() const { return groups_.mesh; }

  // --- for the model, in a pass -------------------------------------------------------------------------------
  /// Units that it is worth to prefetch while one is computed with.
  int prefetch_depth() const { return settings_.prefetch; }
  /// Starts to bring a unit's weights here, if there is room; what weights() will wait for. To be called for the units
  /// to come in their order, nearest first: those that are here already stay.
  void prefetch(std::size_t unit);
  /// The unit's weights, flat [>= numel] in the compute type (f32 where it has full precision), until release(). Reports
  /// the pass's place to the watchdog and the timeline: "backward" from a micro-batch's first gradient() to the next
  /// micro-batch or finish_gradients(), "forward" elsewhere.
  Tensor weights(std::size_t unit);
  void release(std::size_t unit);
  /// Room for the unit's gradient, until gradient_ready(). Fresh at the first call of an update, and in `full` of a
  /// micro-batch.
  Gradient gradient(std::size_t unit);
  /// This micro-batch's gradient of the unit is complete: starts what has to be summed over ranks now.
  void gradient_ready(std::size_t unit);

  // --- for the training loop ----------------------------------------------------------------------------------
  void begin_update();
  void begin_micro_batch(bool last);
  /// Waits for all that is under way: before memory is read by others than the calls here, or freed.
  void wait_all();
  /// Waits for all gradients.
  void finish_gradients();
  /// Records the times of passes, updates and collectives there, until it is set to null.
  void follow(Timeline* timeline);

  // --- for the optimizer, initial values and checkpoints ------------------------------------------------------
  /// The part of the unit whose master and optimizer state are here.
  UnitRange owned(std::size_t unit) const;
  /// Whether sums over all ranks of something owned count this rank's: one rank for each part.
  bool counts() const { return mesh().replica == 0; }
  /// The part of the unit that this rank writes to a checkpoint, within owned(unit): all ranks' are the unit.
  UnitRange saved(std::size_t unit) const;
  /// Its number: saved(u) is unit_part(u, saved_part(), mesh().ranks()).
  int saved_part() const { return mesh().shard * mesh().replicas + mesh().replica; }
  /// Master weights and the summed gradient of owned(unit), f32.
  Tensor master(std::size_t unit) const;
  Tensor gradient_part(std::size_t unit) const;
  /// Where the optimizer puts the new weights in the compute type; empty where they are the master itself.
  Tensor weights_part(std::size_t unit) const;
  /// The unit's weights [numel] as every rank of every group holds them, once they are here; empty where this rank keeps
  /// its part alone (Sharding::full, units that are not resident).
  Tensor whole_weights(std::size_t unit);
  /// The unit's master has changed: sends the new weights where they are needed. In the order of the units, all of them
  /// before the next pass.
  void publish(std::size_t unit);
  /// Fills weights_part from master (after loading; the optimizer does so by itself) and publishes.
  void publish_masters();

 private:
  struct Unit {
    Tensor master;         // [part]
    Tensor weights;        // [whole], where kept whole
    Tensor weights_own;    // [part], place of this rank's part in weights, or own memory
    Tensor gradient;       // [whole], where kept whole
    Tensor gradient_part;  // [part], this rank's place in gradient, or own memory
    Tensor rounded_part;   // [part] bf16, on its way over the replicas, where that is the type there
    bool gradient_fresh = true;
    Request gathering;
    Request reducing;
  };
  /// A buffer that units pass through in turn, whole.
  struct PassingBuffer {
    Tensor whole;  // [largest unit]
    Tensor part;   // gradients: [largest part], the group's sum on its way into gradient_part
    std::int64_t unit = -1;
    std::int64_t formed = -1;  // gradients: the last unit whose gradient formed here
    bool in_use = false;
    std::int64_t last_use = 0;
    bool adds = false;      // gradients: the sum is added to those of earlier micro-batches
    bool complete = false;  // gradients: the last micro-batch's
    Request request;
  };

  void note(std::string_view kind, std::size_t unit);
  const char* phase() const { return backward_ ? "backward" : "forward"; }
  bool kept_whole(std::size_t unit) const;
  std::int64_t part_size(std::size_t unit) const;
  std::int64_t whole_size(std::size_t unit) const { return part_size(unit) * mesh().shards; }
  /// Whether gradients are rounded for the sum over the shards, and for that over the replicas.
  bool rounds() const { return settings_.reduce == Reduce::bf16; }
  bool rounds(std::size_t unit) const { return rounds() && !units_[unit].full_precision; }
  bool rounds_over_replicas(std::size_t unit) const {
    return (rounds() || mesh().two_levels()) && !units_[unit].full_precision;
  }
  /// Of a unit's weights.
  DType weights_type(std::size_t unit) const {
    return units_[unit].full_precision ? DType::f32 : ops_.compute_type();
  }
  void allocate_weights(Unit& unit, std::size_t index, Arena& arena);
  void allocate_gradient(Unit& unit, std::size_t index, Arena& arena);
  void allocate_buffers(Arena& arena);

  PassingBuffer* weight_buffer(std::size_t unit);
  PassingBuffer* free_buffer(std::vector<PassingBuffer>& buffers);
  PassingBuffer* fetch(std::size_t unit);

  PassingBuffer* gradient_buffer(std::size_t unit);
  PassingBuffer* settled_gradient_buffer(std::size_t unit);
  void clear_gaps(PassingBuffer& buffer, std::size_t unit);
  void scatter(std::size_t unit, PassingBuffer& buffer);
  void scatter_in_place(std::size_t unit);
  void settle_gradient(PassingBuffer& buffer);
  void settle_scattered(std::size_t left);
  void sum_over_replicas(std::size_t unit);
  Tensor replicas_sum(std::size_t unit) const;
  Tensor own_place(const Tensor& sum) const;
  void reduce_over_replicas(std::size_t unit);
  void settle_inside(std::size_t left);

  Ops& ops_;
  const MeshGroups& groups_;
  Watchdog& watchdog_;
  std::vector<UnitLayout> units_;
  Settings settings_;
  Use use_;
  std::vector<Unit> state_;
  std::vector<PassingBuffer> weight_buffers_;
  std::vector<PassingBuffer> gradient_buffers_;
  PassingBuffer forming_;  ///< where gradients travel in bf16: f32, the one that is being computed
  Tensor unrounded_part_;  ///< f32 [largest part], of a bf16 sum that is to be added
  std::deque<std::size_t> scattered_;  ///< kept whole, reduce-scattering from where they are
  std::deque<std::size_t> inside_;     ///< reduce-scattering over the replicas of this host
  std::int64_t clock_ = 0;
  Timeline* timeline_ = nullptr;
  bool started_ = false;  ///< a micro-batch of this update has begun
  bool first_micro_batch_ = true;
  bool last_micro_batch_ = true;
  bool backward_ = false;  ///< a gradient of this micro-batch has been asked for
};

}  // namespace ratplus::parallel
