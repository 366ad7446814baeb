#include "apps/bench_times.h"

#include <fmt/core.h>

#include "apps/format.h"

namespace ratplus::apps {

using Json = nlohmann::ordered_json;

std::string rate_cell(double per_second, const char* unit) {
  return per_second > 0 ? format_rate(per_second, unit) : "-";
}

void print_ceilings(const bench::Ceilings& ceilings) {
  fmt::print(
      "ceilings: products {}, copies {}{}\n", format_rate(ceilings.product_rate, "FLOP/s"),
      format_rate(ceilings.bandwidth, "B/s"),
      ceilings.to_host > 0 ? fmt::format(", to the host {}", format_rate(ceilings.to_host, "B/s")) : "");
}

std::vector<std::string> times_head() {
  return {"operation", "forward", "backward", "floor", "ratio", "FLOP/s", "bandwidth"};
}

std::vector<std::string> times_row(const bench::OpTime& time, const bench::Ceilings& ceilings) {
  const double both = time.forward + time.backward;
  return {time.name,
          format_interval(time.forward),
          format_interval(time.backward),
          format_interval(time.floor(ceilings)),
          format_fixed(both / time.floor(ceilings), 2),
          rate_cell(time.operations / both, "FLOP/s"),
          rate_cell(time.bytes / both, "B/s")};
}

Json json_of(const bench::Ceilings& ceilings) {
  return {{"product_rate", ceilings.product_rate},
          {"bandwidth", ceilings.bandwidth},
          {"to_host", ceilings.to_host}};
}

Json json_of(const std::vector<bench::OpTime>& times, const bench::Ceilings& ceilings) {
  Json operations = Json::array();
  for (const auto& time : times) {
    operations.push_back({{"name", time.name},
                          {"forward_seconds", time.forward},
                          {"backward_seconds", time.backward},
                          {"operations", time.operations},
                          {"bytes", time.bytes},
                          {"floor_seconds", time.floor(ceilings)}});
  }
  return operations;
}

}  // namespace ratplus::apps
