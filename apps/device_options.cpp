#include "apps/device_options.h"

#include <fmt/core.h>

#include <boost/program_options.hpp>

namespace ratplus::apps {

DeviceChoice parse_device(const std::string& text) {
  for (const auto choice : {DeviceChoice::automatic, DeviceChoice::cpu, DeviceChoice::cuda}) {
    if (text == to_string(choice)) return choice;
  }
  throw boost::program_options::error(fmt::format("--device {} is none of auto, cpu, cuda", text));
}

DType parse_precision(const std::string& text) {
  for (const auto type : {DType::bf16, DType::f32}) {
    if (text == to_string(type)) return type;
  }
  throw boost::program_options::error(fmt::format("--precision {} is none of bf16, f32", text));
}

}  // namespace ratplus::apps
