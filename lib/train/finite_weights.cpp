#include "lib/train/finite_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lib/checkpoint/part.h"

namespace ratplus::train {

bool weights_are_finite(session::Session& session) {
  const auto& world = session.world();
  auto& store = session.store();
  std::int64_t others = 0;
  world.agree([&] {
    std::vector<float> buffer(checkpoint::piece);
    for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
      checkpoint::in_pieces(store.owned(unit).size(), [&](std::int64_t begin, std::int64_t end) {
        session.ops().download(buffer.data(), store.master(unit).slice(0, begin, end));
        others += std::count_if(buffer.begin(), buffer.begin() + (end - begin),
                                [](float weight) { return !std::isfinite(weight); });
      });
    }
  });
  return world.sum(others) == 0;
}

}  // namespace ratplus::train
