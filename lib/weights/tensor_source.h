// TensorSource: the tensors of a file, by the names of docs/model.md, section 2, as the units of a model.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/weights/source.h"
#include "lib/weights/tensor_file.h"

namespace ratplus::weights {

class TensorSource : public WeightsSource {
 public:
  TensorSource(std::unique_ptr<TensorFile> file, const model::ModelConfig& assumed);

  const char* format() const override { return file_->format(); }
  const checkpoint::Info& info() const override { return info_; }
  const std::vector<parallel::UnitLayout>& units() const override { return units_; }
  StoredType stored_type(std::size_t unit, std::size_t slot) const override;
  void read(std::size_t unit, parallel::UnitRange range, float* out) override;
  void expect_one_reading() override { file_->expect_one_reading(); }

 private:
  model::ModelConfig infer_model(model::ModelConfig assumed) const;
  model::MixerConfig infer_mixer(const model::ModelConfig& assumed, std::int64_t layer) const;
  const StoredTensor& required(const std::string& name) const;
  void place_parameters();
  void check_head();

  std::unique_ptr<TensorFile> file_;
  std::unordered_map<std::string, std::size_t> tensors_;  ///< by name
  checkpoint::Info info_;
  std::vector<parallel::UnitLayout> units_;
  std::vector<std::vector<std::size_t>> places_;  ///< the tensor of each unit's slots
};

/// The second name of the embedding, which is also the head.
inline constexpr const char* embedding_name = "embedding.wte.weight";
inline constexpr const char* head_name = "head.lm_head.weight";

}  // namespace ratplus::weights
