#include <cstring>

#include "base/error.h"
#include "parallel/communicator.h"

namespace ratplus::parallel {
namespace {

class SoloCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

  Request all_gather(Tensor full, Tensor part, std::string_view) override {
    copy(full, part, "all_gather");
    return {};
  }
  Request reduce_scatter(Tensor part, Tensor full, std::string_view) override {
    copy(part, full, "reduce_scatter");
    return {};
  }
  Request all_reduce(Tensor, std::string_view) override { return {}; }

 private:
  /// Every operation is complete when it returns, and gives out no ticket.
  void wait(int ticket) override { require(false, "a group of one rank waits for operation {}", ticket); }

  static void copy(const Tensor& to, const Tensor& from, const char* kind) {
    require(to.numel() == from.numel() && to.dtype() == from.dtype(), "{} of {} to {} in a group of one rank",
            kind, from.describe(), to.describe());
    if (to.raw() == from.raw()) return;
    require(to.device().kind == DeviceKind::cpu && from.device().kind == DeviceKind::cpu,
            "{} of {} to {} on a GPU in a group of one rank", kind, from.describe(), to.describe());
    std::memmove(to.raw(), from.raw(), static_cast<std::size_t>(from.bytes()));
  }
};

}  // namespace

std::unique_ptr<Communicator> make_solo_communicator() {
  return std::make_unique<SoloCommunicator>();
}

}  // namespace ratplus::parallel
