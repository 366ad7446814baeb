// Weights: the whole of a model's parameters on one device, in a type that products take.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/mixer_form.h"
#include "lib/model/parameters.h"
#include "lib/weights/source.h"

namespace ratplus::infer {

/// One layer: the parameters that every mixer has, and the feed-forward layer's.
struct LayerWeights {
  Tensor input_norm;  ///< [d], of the compute type
  Tensor in_proj;     ///< [rows, d], packed as all matrices
  Tensor out_proj;    ///< [d, d]
  Tensor gate_bias;   ///< f32 [Hk, P]; empty where the mixer has none
  Tensor ln;          ///< [d]
  Tensor fc1;         ///< [4d, d]
  Tensor fc2;         ///< [d, 4d]
};

class Weights {
 public:
  /// Takes the memory; the weights are zero until load() or set_initial(). Matrices are of `type`: the compute type, or bf16 on the
  /// CPU, which gives the bits of the same values in f32 from half the memory.
  Weights(const model::ModelConfig& config, Ops& ops, Arena& arena, DType type);
  Weights(const model::ModelConfig& config, Ops& ops, Arena& arena)
      : Weights(config, ops, arena, ops.compute_type()) {}

  /// Reads all weights once, in the order of the file. The source's model is config().
  void load(weights::WeightsSource& source);
  /// The initial values of docs/model.md, section 11.
  void set_initial(std::uint64_t seed);

  const model::ModelConfig& config() const { return config_; }
  DType type() const { return type_; }
  const LayerWeights& layer(std::int64_t i) const { return layers_[static_cast<std::size_t>(i)]; }
  Tensor embedding() const { return embedding_; }  ///< [V, d]
  Tensor head() const {
    return head_;
  }  ///< [V, d], packed: a copy of the embedding where that is another order
  Tensor final_norm() const { return final_norm_; }  ///< [d]

  /// Of a model, in elements of `type`; biases of gates in f32.
  static std::int64_t bytes(const model::ModelConfig& config, DType type);

 private:
  /// A norm's weights, which products do not take: of the compute type.
  struct Norm {
    Tensor stored, used;
  };
  Tensor norm_of(const Tensor& stored, Arena& arena);
  template <typename Read>
  void fill(Read read);
  void pack();

  model::ModelConfig config_;
  Ops& ops_;
  DType type_;
  std::vector<parallel::UnitLayout> units_;
  std::vector<Tensor> flat_;  ///< one a unit
  Tensor staging_;            ///< f32, where a GPU rounds weights; else empty
  std::vector<Norm> norms_;   ///< those that are of another type than `type`
  std::vector<LayerWeights> layers_;
  Tensor embedding_, head_, final_norm_;
};

}  // namespace ratplus::infer
