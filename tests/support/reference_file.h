// A stored PyTorch reference (tests/reference): arrays and attributes of an HDF5 file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/files/hdf5.h"
#include "lib/model/config.h"
#include "lib/model/pattern_plan.h"
#include "lib/session/session.h"

namespace ratplus::test {

class ReferenceFile {
 public:
  explicit ReferenceFile(const std::string& name)
      : file_(hdf5::File::open(std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data" / name)) {}

  hdf5::Group group(const std::string& path) const { return file_.group(path); }

  template <typename T>
  std::vector<T> array(const std::string& path) const {
    const auto dataset = file_.dataset(path);
    std::vector<T> values(static_cast<std::size_t>(dataset.size()));
    dataset.template read<T>(0, values);
    return values;
  }

 private:
  hdf5::File file_;
};

/// The sizes that a case's attributes give.
model::ModelConfig model_of(const hdf5::Group& group);
/// "64,0,0", by layer "64,0,0;dense", by head "16,32,4|none,24,2;dense|8,0,1".
model::PatternPlan plan_of(const std::string& text);

/// Fills a session's weights from the arrays of a group, by the names of docs/model.md, section 2.
void load_weights(session::Session& session, const ReferenceFile& file, const std::string& group);
/// A parameter's elements out of unit-shaped flat values.
std::vector<float> parameter(Ops& ops, const Tensor& unit_values, const parallel::ParameterSlot& slot);

/// ||a - b|| / ||b||.
double relative_error(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace ratplus::test
