// NativeSource: the weights of a checkpoint of ours (lib/checkpoint).
#pragma once

#include "lib/checkpoint/part.h"
#include "lib/model/parameters.h"
#include "lib/weights/source.h"

namespace ratplus::weights {

class NativeSource : public WeightsSource {
 public:
  explicit NativeSource(const std::filesystem::path& directory)
      : info_(checkpoint::read_info(directory)), units_(model::unit_layouts(info_.model)), reader_(info_) {
    for (int part = 0; part < info_.parts; ++part) checkpoint::check_present(info_, part);
  }

  const char* format() const override { return "checkpoint"; }
  const checkpoint::Info& info() const override { return info_; }
  const std::vector<parallel::UnitLayout>& units() const override { return units_; }
  StoredType stored_type(std::size_t unit, std::size_t) const override {
    return units_[unit].full_precision ? StoredType::float32 : info_.weights_type;
  }
  void read(std::size_t unit, parallel::UnitRange range, float* out) override {
    read_state(checkpoint::Kind::weights, unit, range, out);
  }
  void expect_one_reading() override { reader_.expect_one_reading(); }
  /// The optimizer's moments, too.
  void read_state(checkpoint::Kind kind, std::size_t unit, parallel::UnitRange range, float* out) {
    reader_.read(kind, units_[unit], range, out);
  }

 private:
  checkpoint::Info info_;
  std::vector<parallel::UnitLayout> units_;
  checkpoint::PartReader reader_;
};

}  // namespace ratplus::weights
