// ParameterStore: where a model's parameters and gradients are, over the ranks. The model asks it for a unit's
// weights and for room for the unit's gradient, and does not know whether they were gathered just now.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/sharding.h"
#include "parallel/unit.h"

namespace ratplus::parallel {

/// What parameters and activations are held for: evaluation keeps no gradients, and one layer's activations.
enum class Use { training, evaluation };

/// Parameters in flat units, kept as Sharding says:
///
///     sharding    weights (compute type)            master (f32), optimizer state    gradient (f32)
///     none        whole                             whole                            whole, summed over ranks
///     optimizer   whole                             this rank's part                 whole; the sum's part
///     full        resident units whole, the others  this rank's part                 resident units whole, the
///                 in a few buffers in turn                                           others in a few buffers; parts
///
/// With one rank, or none, nothing travels. Where the compute type is f32, weights and master are the same memory
/// as far as both are kept.
///
/// One update: begin_update(); for each micro-batch begin_micro_batch(last), then the model's calls; then
/// finish_gradients(), changes to master(u) by gradient_part(u), and publish().
class ParameterStore {
 public:
  /// A unit's gradient, flat f32. Where it is fresh, what is there means nothing (but zeros in the gaps between
  /// parameters), and the first contribution to each parameter replaces it; else contributions are added.
  struct Gradient {
    Tensor flat;
    bool fresh = true;
  };

  ParameterStore(Ops& ops, Communicator& communicator, std::vector<UnitLayout> units, Sharding sharding,
                 Use use, Arena& arena);

  const std::vector<UnitLayout>& units() const { return units_; }
  int parts() const { return communicator_.size(); }
  /// Whether a rank holds a part of the optimizer's state only (then norms are summed over ranks).
  bool optimizer_is_sharded() const { return sharding_ != Sharding::none; }

  // --- for the model, in a pass -------------------------------------------------------------------------------
  /// Starts to bring a unit's weights here, if there is room; what weights() will wait for.
  void prefetch(std::size_t unit);
  /// The unit's weights, flat [>= numel] in the compute type, until release().
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

  // --- for the optimizer, initial values and checkpoints ------------------------------------------------------
  /// The part of the unit whose master and optimizer state are here.
  UnitRange owned(std::size_t unit) const;
  /// The part of the unit that this rank writes to a checkpoint: together all ranks' parts are the unit.
  UnitRange saved(std::size_t unit) const;
  /// Master weights and the summed gradient of owned(unit), f32.
  Tensor master(std::size_t unit) const;
  Tensor gradient_part(std::size_t unit) const;
  /// Where the optimizer puts the new weights in the compute type; empty where they are the master itself.
  Tensor weights_part(std::size_t unit) const;
  /// The masters have changed: sends the new weights where they are needed.
  void publish();
  /// Fills weights_part from master (after loading; the optimizer does so by itself) and publishes.
  void publish_masters();

 private:
  struct Unit {
    Tensor master;         // [owned]
    Tensor weights;        // [whole], where kept whole
    Tensor weights_own;    // [part], place of this rank's part in weights, or own memory
    Tensor gradient;       // [whole], where kept whole
    Tensor gradient_part;  // [owned]
    bool gradient_fresh = true;
    Request gathering;
    Request reducing;
  };
  /// A buffer that units pass through in turn (sharding full), whole.
  struct PassingBuffer {
    Tensor whole;  // [largest unit]
    Tensor part;   // gradients: [largest part], the sum on its way into gradient_part
    std::int64_t unit = -1;
    bool in_use = false;
    bool add_part = false;
    std::int64_t last_use = 0;
    Request request;
  };

  bool kept_whole(std::size_t unit) const;
  PassingBuffer* weight_buffer(std::size_t unit);
  PassingBuffer* gradient_buffer(std::size_t unit);
  PassingBuffer* free_buffer(std::vector<PassingBuffer>& buffers);
  PassingBuffer* fetch(std::size_t unit);
  void settle_gradient(PassingBuffer& buffer);
  void allocate_weights(Unit& unit, std::size_t index, Arena& arena);
  void allocate_gradient(Unit& unit, std::size_t index, Arena& arena);

  /// Buffers that blocks pass through: one in use, one on its way.
  static constexpr int buffers_each = 2;

  Ops& ops_;
  Communicator& communicator_;
  std::vector<UnitLayout> units_;
  Sharding sharding_;
  Use use_;
  std::vector<Unit> state_;
  std::vector<PassingBuffer> weight_buffers_;
  std::vector<PassingBuffer> gradient_buffers_;
  std::int64_t clock_ = 0;
  bool started_ = false;  ///< a micro-batch of this update has begun
  bool first_micro_batch_ = true;
  bool last_micro_batch_ = true;
};

}  // namespace ratplus::parallel
